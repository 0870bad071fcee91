"""The local step: losses, optimisers, training, and the evaluation of a network.

To add a loss: a function of one number a sample and a row in ``losses.py``, and its name with the
tasks that it fits in ``common/study/registry.py`` and in ``common/study/sections.py``.
"""
