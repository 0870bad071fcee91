"""The only way out of a site: reduced, checked against the exact schema, written down."""
