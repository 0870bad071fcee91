"""The local step: losses, optimisers, training and evaluation."""
