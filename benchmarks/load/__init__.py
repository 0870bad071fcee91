"""What others do to a server or a run while it works: attackers, readers of a page, trackers."""
