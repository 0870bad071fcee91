"""The training batches of a round: drawn from the site's own streams, augmented, on the device."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wardround.client.data.batch import Batch, mixed
from wardround.client.data.cohort import Cohort
from wardround.client.session.model_context import ModelContext
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.schedule import draw_batches
from wardround.common.messages.instructions import Instruction
from wardround.common.runtime.seeds import generator_for
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardround.client.training.adversarial import TrainingAttack


def batches_of_round(
    site: str, context: ModelContext, cohort: Cohort, start: LocalStart, instruction: Instruction
) -> Iterator[Batch]:
    """Return the batches that a site trains on in a round, on the device.

    Which examinations, how they are augmented and how they are attacked come from three streams of
    their own, seeded with the study's seed, the site's name and the round.

    Args:
        site: Its name.
        cohort: The training patients.
    """
    study, device = context.study, context.device
    key = (study.federation.seed, site, instruction.round)
    drawing, augmenting = generator_for(*key, "batches"), generator_for(*key, "augmentation")
    attack, change = _attack(site, study, start, instruction), _mixing(study, augmenting)

    def to_batch(indices: Tensor) -> Batch:
        batch = cohort.batch(indices, augmenting, device)
        if attack is None:
            return batch if change is None else change(batch)
        steps = cohort.grey_steps[indices]
        each = len(batch) // len(indices)  # with patches an examination gives several
        return attack.change(batch, steps.repeat_interleave(each, dim=0))

    fewest, held = study.fewest_in_batch, study.continual
    if held is not None and held.method == "replay" and held.wave > 1:
        from wardround.client.training.replay import draw_replayed

        return map(to_batch, draw_replayed(cohort.waves, held, start.training, drawing, fewest))
    return map(to_batch, draw_batches(cohort.targets, start.training, drawing, fewest))


def _mixing(study: Study, generator: torch.Generator) -> "Callable[[Batch], Batch] | None":
    """Return what mixes the examples of each batch, where the study asks for it."""
    if not study.training.mixup:
        return None
    alpha, classes = study.training.mixup, study.class_count
    return lambda batch: mixed(batch, alpha, classes, generator)


def _attack(
    site: str, study: Study, start: LocalStart, instruction: Instruction
) -> "TrainingAttack | None":
    """Return what changes each batch's images against the network, in a round that has it."""
    options = start.training.adversarial
    if options is None or instruction.round < options.start_round:
        return None
    from wardround.client.training.adversarial import TrainingAttack

    key = (study.federation.seed, site, instruction.round)
    return TrainingAttack(options, start.network, start.loss, generator_for(*key, "attack"))
