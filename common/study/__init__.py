"""The study file: everything that server and sites agree on."""
