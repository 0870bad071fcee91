"""Readers in the loop: which cases to show them, what they say, and whether choosing paid."""
