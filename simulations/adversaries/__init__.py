"""Hostile sites, for a study of what they could do."""
