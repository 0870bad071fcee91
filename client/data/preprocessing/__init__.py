"""From an image as it was stored to an array as the study wants it, kept for the next round."""
