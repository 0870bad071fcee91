"""Sums of evidence that may leave a hospital once: one file a pack, checked where it comes in."""
