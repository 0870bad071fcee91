"""The page on which a reader looks at a queue: buttons for classes, a brush for masks."""
