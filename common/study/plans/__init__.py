"""What follows from a study alone: the strategy's four choices, the privacy plans."""
