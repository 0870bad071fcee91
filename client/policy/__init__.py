"""What a hospital allows, and which studies it approved.

To add a rule: its key in ``policy.py``, a function and a row in ``rules.py``, and a line for the
hospital in ``template.py``.
"""
