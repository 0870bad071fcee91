"""What Wardround is compared with: bare torch loops, and the same job on stock Flower."""
