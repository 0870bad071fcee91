"""Who attacks a simulated training, and how: the study's ``[[simulation.adversary]]``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from wardround.common.errors import StudyError
from wardround.common.runtime.seeds import generator_for
from wardround.common.study.sections.simulation import Adversary
from wardround.common.study.study import Study
from wardround.simulations.adversaries.manipulations import (
    FLIPPED_LABELS,
    STRENGTHS,
    alie_strength,
)


@dataclass(frozen=True, slots=True)
class Role:
    """What one hostile site does.

    Attributes:
        strength: Of its kind; 0 where the kind has none.
        target: Class index that a trigger stands for.
        seed: Of everything that it draws.
    """

    kind: str
    strength: float
    target: int
    seed: int


def cast_roles(study: Study, sites: Sequence[str]) -> dict[str, Role]:
    """Return the role of each hostile site; empty where all are honest.

    Raises:
        StudyError: A site is unknown or has two roles, too many are asked for, or the study is not
            of a kind that the attack fits.
    """
    roles: dict[str, Role] = {}
    for place, adversary in enumerate(study.simulation.adversary):
        _check_fits(study, adversary)
        chosen = _chosen(study, adversary, sites, roles, place)
        role = Role(
            adversary.kind,
            _strength(adversary, len(sites), len(chosen)),
            study.data.classes.index(adversary.target) if adversary.target else 0,
            study.simulation.seed,
        )
        roles.update(dict.fromkeys(chosen, role))
    return roles


def has_backdoor(study: Study) -> bool:
    """Return whether an adversary of the study plants a backdoor."""
    return any(adversary.kind == "backdoor" for adversary in study.simulation.adversary)


def target_of(study: Study) -> int:
    """Return the class index that the study's first backdoor stands for."""
    targets = [a.target for a in study.simulation.adversary if a.kind == "backdoor"]
    return study.data.classes.index(targets[0]) if targets and targets[0] else 0


def _chosen(
    study: Study,
    adversary: Adversary,
    sites: Sequence[str],
    taken: Mapping[str, Role],
    place: int,
) -> list[str]:
    if adversary.sites and adversary.count is not None:
        msg = "a simulation.adversary has both sites and count: keep one of them."
        raise StudyError(msg)
    for site in adversary.sites:
        if site not in sites or site in taken:
            why = "already has a role" if site in taken else "is not one of the sites"
            msg = f"the adversary {site!r} {why}: choose among {', '.join(sorted(sites))}."
            raise StudyError(msg)
    if adversary.sites:
        return list(adversary.sites)
    free = sorted(site for site in sites if site not in taken)
    count = adversary.count or 1
    if count >= len(free):
        msg = (
            f"simulation.adversary.count is {count}, but {len(free)} sites are free and one must "
            f"stay honest: give at most {max(0, len(free) - 1)}, or add sites."
        )
        raise StudyError(msg)
    drawing = generator_for("adversary", study.simulation.seed, place)
    return sorted(free[index] for index in torch.randperm(len(free), generator=drawing)[:count])


def _strength(adversary: Adversary, sites: int, hostile: int) -> float:
    if adversary.strength is not None:
        return adversary.strength
    if adversary.kind == "alie":
        return alie_strength(sites, hostile)
    return STRENGTHS.get(adversary.kind, 0.0)


def _check_fits(study: Study, adversary: Adversary) -> None:
    if adversary.target is not None and adversary.target not in study.data.classes:
        known = ", ".join(study.data.classes)
        msg = (
            f"simulation.adversary.target {adversary.target!r} is no class: choose one of {known}."
        )
        raise StudyError(msg)
    if study.task.restores and adversary.kind in FLIPPED_LABELS:
        msg = (
            f"simulation.adversary.kind = {adversary.kind!r} turns labels round, and pretraining "
            "reads none: choose another kind for this study."
        )
        raise StudyError(msg)
    fits = study.data.kind == "image" and study.task.classifies and not study.data.multi_label
    if adversary.kind == "backdoor" and not fits:
        msg = (
            "simulation.adversary.kind = 'backdoor' needs images of one class each: "
            "choose another kind for this study."
        )
        raise StudyError(msg)
