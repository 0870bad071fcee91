"""The networks that a study can name: ``registry.py`` has the table, the others the networks."""
