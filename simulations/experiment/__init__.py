"""A whole simulated run: split, train, compare, measure."""
