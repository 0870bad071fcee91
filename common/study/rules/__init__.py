"""What does not fit together in a study, and why."""
