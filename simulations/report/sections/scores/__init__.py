"""Sections from scores: does it tell apart, is it calibrated, what changes if we act on it."""
