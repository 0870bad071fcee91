"""Seeds and memory of a process."""
