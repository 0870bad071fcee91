"""The local step: losses, optimisers, training, and the evaluation of a network."""
