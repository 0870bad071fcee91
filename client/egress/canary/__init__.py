"""A canary round at a site: each stage of a round gone through, of which a word a stage leaves."""
