"""Figures, tables and pictures of the report."""
