"""The server's end of the link: Flower's Fleet API, in memory and on disk."""
