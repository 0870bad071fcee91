"""Random changes of training batches: drawn first, then applied, on any device."""
