"""A study simulated several times: with other seeds, and without one hospital each."""
