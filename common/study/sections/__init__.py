"""The sections of a study file, each a frozen model that refuses unknown keys.

A study comes from the other side: every number has a bound, every string and list a length, and no
string holds a character that a screen obeys. The bounds are wide: they keep what reads a study busy
for seconds at most, and say nothing of what is sensible.
"""
