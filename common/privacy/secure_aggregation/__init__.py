"""Secure aggregation: the server learns the sites' sum and none of its parts (Bonawitz 2017)."""
