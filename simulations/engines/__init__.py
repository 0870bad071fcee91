"""Grids that run the client's code on this machine: in-process, stacked, worker pool, Ray."""
