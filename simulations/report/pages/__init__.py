"""The pages of several runs, and of a model at another hospital."""
