"""Finished models on worse images, and on images that somebody changed on purpose."""
