"""The supervisor of the server's processes, and a new server folder."""
