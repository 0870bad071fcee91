"""The round loop: ask the sites, check their replies, aggregate, commit."""
