"""The aggregation server: rounds, strategies, checkpoints."""
