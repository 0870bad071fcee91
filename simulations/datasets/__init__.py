"""Public data sets as site-ready examinations."""
