"""Somebody leaves a study: the signed request, and the signed certificate of what became of it."""
