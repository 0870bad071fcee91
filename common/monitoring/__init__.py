"""What a process measures of itself and tells a monitor or a tracker; never of a patient."""
