"""A study planned from its sites' statistics: asked, merged, and made into the study's numbers."""
