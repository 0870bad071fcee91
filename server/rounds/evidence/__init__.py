"""Evidence of a finished model: asked of the sites once, merged, and made into rows."""
