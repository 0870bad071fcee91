"""What does not fit within a section of a study, or between two: network, data, training."""
