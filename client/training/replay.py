"""Old rows beside new ones: a site trains on what it has kept while it learns what has come since.

Experience replay (Rolnick et al. 2019, NeurIPS, section 3). The old images lie at the hospital that
took them, so that no memory of a few has to be chosen: all of them are replayed.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Generator, Tensor

from wardround.client.training.schedule import draw_batches, steps_a_round
from wardround.common.study.sections.continual import ContinualSection
from wardround.common.study.sections.training import TrainingSection


def draw_replayed(
    waves: Tensor,
    held: ContinualSection,
    training: TrainingSection,
    generator: Generator,
    fewest: int = 1,
) -> Iterator[Tensor]:
    """Yield the examination indices, int64, of each step of one round.

    Each batch has its share of old examinations, in whole ones, so that all batches together have
    that share: of batches of one example some are old. New and old ones come by permutations of
    their own. There are as many steps as without replay: who
    counts them learns nothing of how many are new.

    Args:
        waves: ``(N,)`` int64, none above ``held.wave``.
        generator: The only source of randomness.
        fewest: As for :func:`wardround.client.training.schedule.draw_batches`.
    """
    old = (waves < held.wave).nonzero().flatten()
    new = (waves == held.wave).nonzero().flatten()
    if not len(old) or not len(new):  # a hospital that came later, or whose scanner is the old one
        yield from draw_batches(waves, training, generator, fewest)
        return
    size = min(training.batch_size, len(waves))
    share = size * held.replayed
    kept, came = _in_turn(old, generator), _in_turn(new, generator)
    for step in range(steps_a_round(len(waves), training)):
        replayed = int(share * (step + 1)) - int(share * step)
        picked = [*islice(kept, replayed), *islice(came, size - replayed)]
        yield torch.tensor(picked, dtype=torch.int64)


def _in_turn(indices: Tensor, generator: Generator) -> Iterator[int]:
    """Yield indices without end: each once before any comes again."""
    while True:
        yield from indices[torch.randperm(len(indices), generator=generator)].tolist()
