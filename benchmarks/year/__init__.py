"""A year in a hospital, week by week, by the commands that it would type itself."""
