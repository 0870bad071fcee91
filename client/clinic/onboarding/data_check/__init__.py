"""What stands in a hospital's own data, looked at once before it is trained on; it stays there."""
