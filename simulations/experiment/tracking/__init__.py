"""A user's trackers follow a simulated run from a process of their own, and cannot hold it up."""
