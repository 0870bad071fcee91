"""Can this site take part in a study? Every check, with its remedy."""
