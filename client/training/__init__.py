"""The local step: batches, losses, optimisers, training.

To add a loss: a function of one number a sample and a row in ``losses.py``, and its name with the
tasks that it fits in ``common/study/registry.py`` and in ``common/study/sections.py``.
"""
