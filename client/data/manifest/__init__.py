"""The rows of a site's manifest: cells, patients, and which split each patient is in."""
