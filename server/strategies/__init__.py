"""How updates become the next model: one idea a file."""
