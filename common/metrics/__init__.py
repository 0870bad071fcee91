"""Sums that merge over sites, and the metrics computed from them."""
