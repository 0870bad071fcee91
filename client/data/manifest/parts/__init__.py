"""Which patient is in which part, for good: drawn, written down, and who has left."""
