"""Labels and masks of imported studies: from a table, reports, segmentations, structure sets."""
