"""How updates combine: one file a family of aggregation rules, and their registry.

To add a rule: a function here; a row in ``registry.py``; and in ``common/study/plans/strategy.py``,
where a study's choices stand, its name with a sentence, and in ``_ROBUST`` how many sites it needs.
"""
