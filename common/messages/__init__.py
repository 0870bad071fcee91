"""What crosses the wall: instructions to a site, replies and refusals from it."""
