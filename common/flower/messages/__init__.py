"""A Flower message as records, as bytes, as a file: its size, its hash, its loading."""
