"""What a curious server could learn from what it receives: attacks on the patients' privacy.

An attack that fails proves nothing by itself; ``docs/attacks.md`` says what each one shows.
"""
