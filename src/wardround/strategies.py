"""The federated strategies by themselves: updates in, one model out, with no study and no server.

``from wardround import strategies``. The rules are those that the server runs.
"""

from wardround.simulations.notebook.strategies import (
    Aggregator,
    StrategyRow,
    aggregate,
    list_strategies,
)

__all__ = ["Aggregator", "StrategyRow", "aggregate", "list_strategies"]
