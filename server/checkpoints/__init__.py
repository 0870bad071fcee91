"""The models of a run and its history, on disk."""
