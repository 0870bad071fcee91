"""Federated learning for medical imaging across hospitals: no image leaves its ward."""

__version__ = "0.1.0"
