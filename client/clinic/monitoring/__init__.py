"""Whether the images and predictions of a hospital still look as they did when a model began."""
