"""What a strategy asks for beside the loss: one file a local objective.

To add one: a class here, a row in ``registry.py``, and its name with a sentence in
``common/study/plans/strategy.py``.
"""
