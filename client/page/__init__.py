"""The page of a hospital, on its own machine alone: what was asked, what left, what was spent."""
