"""A site's end of the link: a client of Flower's Fleet API."""
