"""A real server and real sites as processes of this machine."""
