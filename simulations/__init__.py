"""Experiments on one machine: public data split into sites, compared and reported."""
