"""What was spent on a site's patients, written down before it is spent and for good."""
