"""A finished model at a hospital that it has never seen: its data, its answers, its numbers."""
