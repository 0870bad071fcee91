"""A study in plain language, for the person who approves it."""
