"""Several sites' small networks trained as one: a stack of weights, one step for all of them."""
