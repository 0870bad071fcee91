"""Named tensors: their schema, arithmetic, files and compression."""
