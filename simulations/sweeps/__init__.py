"""Many short federations that search a study's settings."""
