"""The process that sites reach: listeners, and the gates before the link."""
