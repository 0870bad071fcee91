"""A site at work on one study: its network and cohorts, loaded between a run's messages."""
