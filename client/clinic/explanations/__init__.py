"""Where a model looked: attribution maps, and the checks that say whether to believe them."""
