"""What is measured of finished models, on the sites' own test patients."""
