"""What does not fit to a study's privacy: of patients, of sites, and of updates under masks."""
