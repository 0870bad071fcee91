"""What a run leaves behind: rows, log, events, findings."""
