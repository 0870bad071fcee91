"""Which study runs when, and the process of a run."""
