"""Which sites take part in a round."""

import math
from collections.abc import Sequence

import torch

from wardround.common.runtime.seeds import generator_for
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Node


def select_sites(nodes: Sequence[Node], study: Study, number: int) -> tuple[Node, ...]:
    """Return the sites of a round, in the order of their names.

    ``federation.fraction`` of them, rounded up, and never fewer than ``minimum_sites`` where there
    are as many; drawn anew each round, the same for the same seed.
    """
    federation = study.federation
    wanted = max(math.ceil(federation.fraction * len(nodes)), federation.minimum_sites)
    if wanted >= len(nodes):
        return tuple(nodes)
    generator = generator_for(federation.seed, "selection", number)
    drawn = torch.randperm(len(nodes), generator=generator)[:wanted].sort().values
    return tuple(nodes[index] for index in drawn.tolist())
