"""The only place that may import Flower's internals; contract-tested."""
