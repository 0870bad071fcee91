"""The commands of `wardround site`."""
