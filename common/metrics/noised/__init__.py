"""A measurement with noise: one bounded vector a patient, summed, noised, and made into metrics."""
