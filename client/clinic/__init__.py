"""From the picture archive to a model, and from the model back into the archive."""
