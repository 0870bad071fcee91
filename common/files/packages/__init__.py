"""Installed packages that a study may name: found, hashed, and imported as they were hashed."""
