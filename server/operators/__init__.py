"""The operators' API over gRPC: studies are handed in, runs watched and stopped, sites listed."""
