"""Flower's simulation engine on Ray."""
