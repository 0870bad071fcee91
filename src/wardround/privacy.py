"""The privacy accountant by itself: what noisy steps cost, and the noise that a budget needs.

``from wardround import privacy``. Nothing here needs a study, torch or data; dp-accounting does the
sums (``docs/concepts/privacy.md`` says which).
"""

from wardround.common.privacy.accounting import Spend, epsilon_of, noise_for
from wardround.simulations.notebook.privacy import (
    PrivacyRow,
    epsilon,
    plan_of_study,
    steps_for,
    trade_offs,
)

__all__ = [
    "PrivacyRow",
    "Spend",
    "epsilon",
    "epsilon_of",
    "noise_for",
    "plan_of_study",
    "steps_for",
    "trade_offs",
]
