"""Noise that many sites add in parts, so that their sum has all of it (Kairouz, Liu, Steinke 2021).

Whole numbers, drawn exactly, so that they can be added under masks.
"""
