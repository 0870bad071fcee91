"""How updates combine: one file a family of aggregation rules, and their registry.

To add a rule: a function here; in ``registry.py`` a row, and in ``MINIMUMS`` how many sites it needs;
and its name with a sentence in ``common/study/plans/strategy.py``, where a study's choices stand.
"""
