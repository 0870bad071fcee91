"""Files that survive a crash, private files, locks, and TOML that is checked when read."""
