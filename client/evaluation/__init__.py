"""One model on one split of a site's patients: predict, count."""
