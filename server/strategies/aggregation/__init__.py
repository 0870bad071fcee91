"""How updates combine: one file a family of aggregation rules, and their registry."""
