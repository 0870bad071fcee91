"""A researcher's own arrays and tables, written down as the manifest of some hospitals."""
