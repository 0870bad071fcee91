"""Files that survive a crash, tables, chains of hashes, locks, and TOML checked when read."""
