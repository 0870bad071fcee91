"""One hospital: its data, its training, its last word on what leaves."""
