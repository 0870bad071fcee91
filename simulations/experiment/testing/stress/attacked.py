"""Finished models on test images that were changed on purpose: FGSM, PGD, and PGD from elsewhere.

What is attacked is the image on the network's grid in its own grey values. Every resizing,
smoothing and median on the way there is a mean or a choice of neighbours, which moves no value
further than the values it is made from: whoever may change the stored image by epsilon can do no
more to the network than this attacker, who is therefore the stronger one. The intensity preset is
differentiated as it is, percentiles and all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.training.adversarial import LossOfImages, fgsm, pgd_with_restarts
from wardround.client.training.evaluation import forward_of
from wardround.common.runtime.seeds import generator_for
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.stress.corrupted import outcomes_of
from wardround.simulations.experiment.testing.stress.finished import (
    ChangedPatients,
    FinishedRun,
    Tested,
    in_chunks,
    patients_of_test,
)
from wardround.simulations.experiment.testing.stress.grey_images import GreyImages, grey_images
from wardround.simulations.experiment.testing.stress.losses import losses_of
from wardround.simulations.experiment.testing.stress.outcomes import (
    Interval,
    Outcomes,
    auroc,
    joined,
    of_all_sites,
    success,
)
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.stress import BOX_F1, CLEAN, LOCAL, AttackRow

FGSM, PGD, TRANSFER = "fgsm", "pgd", "transfer"
_CPU = torch.device("cpu")
_DRAWS = 200  # of a bootstrap of AUROC


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """What is asked.

    Attributes:
        models: Names of the run's models.
        epsilons: How far a grey value may go, in 255ths of the image's range.
        steps: Of PGD.
        restarts: Random starts of PGD.
        transfers: Whether images made against another site's own model are tried too.
    """

    models: tuple[str, ...]
    epsilons: tuple[float, ...] = (1, 2, 4, 8)
    steps: int = 20
    restarts: int = 3
    transfers: bool = True
    max_cases: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: a part of a row."""

    name: str
    epsilon: float
    steps: int
    restarts: int


def attack_rows(
    run: FinishedRun,
    sites: Mapping[str, Path],
    plan: AttackPlan,
    tell: Callable[[str], None] = lambda said: None,
) -> list[AttackRow]:
    """Return what is left of each model under each attack, on each site and on all together.

    Args:
        run: The run whose models are asked.
        sites: The folders of the sites that are asked about.
        plan: What is asked.
        tell: Is told what is being done.
    """
    found: dict[tuple[str, Attack], dict[str, Outcomes]] = {}
    for number, (name, folder) in enumerate(sites.items(), 1):
        tell(f"{name} ({number} of {len(sites)}): attacks on {', '.join(plan.models)}")
        patients = patients_of_test(folder, run.study, plan.max_cases)
        for model in plan.models:
            network = run.network(model, name)
            other = _other_site(run, name) if plan.transfers else None
            surrogate = None if other is None else run.network(LOCAL, other)
            attacked = _Attacked(run.study, patients, network, surrogate, plan, name)
            for attack, outcomes in attacked.outcomes().items():
                found.setdefault((model, attack), {})[name] = outcomes
    return [
        row for (model, attack), by in found.items() for row in _rows(model, attack, by, run.study)
    ]


def _other_site(run: FinishedRun, site: str) -> str | None:
    """Return the next site, whose own model an attacker from there would have."""
    names = list(run.sites)
    if LOCAL not in run.models or len(names) < 2:
        return None
    return names[(names.index(site) + 1) % len(names)]


@dataclass(frozen=True, slots=True, eq=False)
class _Attacked:
    """One model and the test patients of one site."""

    study: Study
    patients: Tested
    network: nn.Module
    surrogate: nn.Module | None
    plan: AttackPlan
    site: str

    def outcomes(self) -> dict[Attack, Outcomes]:
        parts: dict[Attack, list[Outcomes]] = {}
        for places in in_chunks(self.patients, self.study):
            for some, grey in grey_images(self.patients, places, self.study):
                for attack, values in self._changed(some, grey):
                    with torch.no_grad():
                        images = grey.seen(values, self.study).numpy()
                    cohort = ChangedPatients(self.patients.cohort, some, list(images))
                    parts.setdefault(attack, []).append(
                        outcomes_of(self.network, cohort, self.study)
                    )
        return {attack: joined(some) for attack, some in parts.items()}

    def _changed(self, places: Sequence[int], grey: GreyImages) -> Iterator[tuple[Attack, Tensor]]:
        plan = self.plan
        yield Attack(CLEAN, 0.0, 0, 0), grey.values
        loss = self._loss(self.network, places, grey)
        for epsilon in plan.epsilons:
            ball = grey.ball(epsilon)
            yield Attack(FGSM, epsilon, 1, 1), fgsm(loss, ball)
            drawing = generator_for(plan.seed, self.site, places[0], "attack")
            tries = pgd_with_restarts(loss, ball, plan.steps, plan.restarts, drawing)
            for number, values in enumerate(tries, 1):
                if number in (1, plan.restarts):
                    yield Attack(PGD, epsilon, plan.steps, number), values
            if self.surrogate is not None:
                other = self._loss(self.surrogate, places, grey)
                drawing = generator_for(plan.seed, self.site, places[0], "transfer")
                (values,) = pgd_with_restarts(other, ball, plan.steps, 1, drawing)
                yield Attack(TRANSFER, epsilon, plan.steps, 1), values

    def _loss(self, network: nn.Module, places: Sequence[int], grey: GreyImages) -> LossOfImages:
        """Return the loss of each image, ``(B,)``, from its own grey values."""
        study, cohort = self.study, self.patients.cohort
        given = cohort.batch(torch.tensor(list(places)))
        forward = forward_of(network, study, _CPU)

        def loss(values: Tensor) -> Tensor:
            batch = replace(given, images=grey.seen(values, study))
            return losses_of(forward, batch, study)

        return loss


def _rows(
    model: str, attack: Attack, by: Mapping[str, Outcomes], study: Study
) -> Iterator[AttackRow]:
    parts = list(by.items())
    if len(parts) > 1:
        parts.insert(0, (ALL_SITES, of_all_sites([outcomes for _, outcomes in parts])))
    for site, outcomes in parts:
        for measure, value in _measures(outcomes, study, site == parts[0][0]):
            yield AttackRow(
                model,
                site,
                attack.name,
                attack.epsilon,
                attack.steps,
                attack.restarts,
                measure,
                value.value,
                value.low,
                value.high,
                examinations=len(outcomes.patients),
                patients=len(np.unique(outcomes.patients)),
            )


def _measures(
    outcomes: Outcomes, study: Study, with_interval: bool
) -> Iterator[tuple[str, Interval]]:
    if study.task.dense:
        yield "dice", success(outcomes)
        return
    if study.task.boxes:
        yield BOX_F1, success(outcomes)
        return
    draws = _DRAWS if with_interval else 0
    yield "auroc", auroc(outcomes, not study.data.multi_label, draws=draws)
    yield "balanced-accuracy", success(outcomes)
