"""Public data sets as site-ready examinations.

To add one: a module with its ``ENTRY`` (how it is loaded, licence, citation), and a row in
``catalogue.py``.
"""
