"""Accounting, secure randomness and the Gaussian mechanism."""
