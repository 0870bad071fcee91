"""What a hospital allows, and which studies it approved."""
