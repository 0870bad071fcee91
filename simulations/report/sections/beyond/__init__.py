"""Sections on what is beyond the patients it was trained on: other hospitals, later data."""
