"""A canary round: one round through every stage at every site, before a study costs days."""
