"""Networks by name, and which of their numbers are trained, shared or personal."""
