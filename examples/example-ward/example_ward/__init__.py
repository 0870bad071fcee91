"""What this package registers for Wardround; see the entry points in pyproject.toml."""
