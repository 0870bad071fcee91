"""The end of the link that a study's process holds."""
