"""What a folder or a picture archive has: its studies and series, known by their headers."""
