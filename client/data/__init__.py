"""From a manifest to tensors: reading, checking, preprocessing, augmenting."""
