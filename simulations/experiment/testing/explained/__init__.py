"""Finished models asked where they looked, with the checks of each answer."""
