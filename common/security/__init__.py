"""Keys, tokens, and the signed audit log."""
