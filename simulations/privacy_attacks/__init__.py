"""What a curious server could learn from what it receives: attacks on the patients' privacy.

An attack that fails proves nothing by itself; ``docs/concepts/attacks.md`` says what each one
shows.
"""
