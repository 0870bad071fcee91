"""Evidence of a finished model as a site answers it: reduced to sums, asked once."""
