"""How updates combine: one file a family of aggregation rules, and their registry.

To add a rule: a function here; a row in ``registry.py``, and in its ``MINIMUMS`` how many sites the
rule needs; and its name with a sentence in ``common/study/plans/strategy.py``, where a study's
choices stand.
"""
