"""Every attack that fits a run, on updates without and with protection."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.distributed_noise import plan_shares
from wardround.simulations.experiment.testing.samples import as_picture
from wardround.simulations.privacy_attacks import analytic
from wardround.simulations.privacy_attacks.canary_audit import audit_plan
from wardround.simulations.privacy_attacks.fitness import (
    ANALYTIC,
    CANARIES,
    IN_BATCH,
    MATCHING,
    find_misfits,
)
from wardround.simulations.privacy_attacks.gradient_matching import (
    GEIPING,
    ZHU,
    match_gradients,
)
from wardround.simulations.privacy_attacks.likeness import (
    best_likeness,
    correlation,
    count_identified,
)
from wardround.simulations.privacy_attacks.observation import (
    Gradients,
    observe_plainly,
    observe_protected,
)
from wardround.simulations.privacy_attacks.sum_audit import audit_sum
from wardround.simulations.privacy_attacks.target import Target
from wardround.simulations.run_files.attack_findings import (
    AttackPictures,
    AuditFinding,
    Finding,
    Findings,
)

PLAIN, CLIPPED, PRIVATE = "none", "clipping alone", "clipping and noise"
# What the server of a masked run sees: the sum over all sites' patients.
SUMMED, NOISED_SUM = "masks alone", "masks, clipping and noise"
_SMALL_BATCH = 4  # what the attacks of the literature still bring back


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried.

    Attributes:
        patients: Attacked one by one.
        seconds: Of each search of a gradient.
        canaries: Planted patients of the audit; 0 leaves it out.
        seed: Of the searches and the coins.
    """

    patients: int = 4
    seconds: float = 15.0
    canaries: int = 1000
    seed: int = 0


Observe = Callable[[Sequence[Batch]], Gradients]
Attack = Callable[[Gradients], Tensor]


def inspect_target(target: Target, effort: Effort) -> tuple[Findings, AttackPictures | None]:
    """Run what fits the target, and say of the rest why it does not."""
    rows: list[Finding] = []
    brought: dict[str, dict[str, list[Tensor]]] = {}
    not_run = list(find_misfits(target))
    refused = {miss.attack for miss in not_run}
    for name, attack, views in _attacks(target, effort):
        if name not in refused:
            for protection in views:
                row, images = _try(target, effort, name, attack, protection)
                rows.append(row)
                brought.setdefault(name, {})[protection] = images
    if IN_BATCH not in refused:
        rows += [_read_batch(target, protection) for protection in _views(target)]
    audit = None if CANARIES in refused or not effort.canaries else _audit(target, effort)
    findings = Findings(
        site=target.site,
        network=target.study.model.network,
        plan=target.plan_words,
        own_plan=target.own_plan,
        rows=tuple(rows),
        not_run=tuple(not_run),
        audit=audit,
    )
    return findings, _pictures(target, brought)


def _attacks(target: Target, effort: Effort) -> Iterator[tuple[str, Attack, tuple[str, ...]]]:
    layer = analytic.first_linear_layer(target.network)
    if layer is not None:
        yield ANALYTIC, lambda seen: analytic.read_image(seen, layer), _views(target)
    # A scale does not matter to the cosine, so clipping alone changes nothing for this search.
    views = tuple(view for view in _views(target) if view != CLIPPED)
    yield MATCHING, lambda seen: _match(target, effort, seen), views


def _views(target: Target) -> tuple[str, ...]:
    if target.beside:
        return (PLAIN, SUMMED, NOISED_SUM) if target.own_plan else (PLAIN, SUMMED)
    return (PLAIN,) if target.plan is None else (PLAIN, CLIPPED, PRIVATE)


def _observer(target: Target, protection: str) -> Observe:
    beside = target.beside if protection in (SUMMED, NOISED_SUM) else ()
    if target.plan is None or protection in (PLAIN, SUMMED):
        return lambda batches: observe_plainly(
            target.network, _joined([*batches, *beside]), target.loss.per_sample
        )
    noised = protection in (PRIVATE, NOISED_SUM)
    plan = target.plan if noised else replace(target.plan, noise_multiplier=0.0)
    return lambda batches: observe_protected(
        target.network,
        PatientBatch(_joined([*batches, *beside]), (1,) * (len(batches) + len(beside))),
        target.loss.per_sample,
        plan,
        target.method,
        Randomness(),
    )


def _try(
    target: Target, effort: Effort, name: str, attack: Attack, protection: str
) -> tuple[Finding, list[Tensor]]:
    """Attack patients one by one under one kind of protection."""
    started, observe, originals = (
        time.perf_counter(),
        _observer(target, protection),
        target.originals,
    )
    attacked = target.examples[: effort.patients]
    images = [attack(observe([example])) for example in attacked]
    pairs = zip(images, originals, strict=False)
    finding = Finding(
        attack=name,
        protection=protection,
        patients=len(images),
        likeness=fmean(correlation(image, original) for image, original in pairs),
        identified=count_identified(images, originals),
        candidates=len(originals),
        seconds=time.perf_counter() - started,
    )
    shape = originals[0].shape
    return finding, [image.reshape(shape) for image in images]


def _read_batch(target: Target, protection: str) -> Finding:
    """Read each unit of a step of several patients; a patient counts by the unit likest to them."""
    layer = analytic.first_linear_layer(target.network)
    if layer is None:
        msg = "the network has no first linear layer"
        raise ValueError(msg)
    started = time.perf_counter()
    attacked = target.examples[:_SMALL_BATCH]
    units = analytic.read_units(_observer(target, protection)(attacked), layer)
    best = [best_likeness(units, original) for original in target.originals[: len(attacked)]]
    return Finding(
        attack=IN_BATCH,
        protection=protection,
        patients=len(attacked),
        likeness=fmean(value for value, _ in best),
        identified=count_identified([image for _, image in best], target.originals),
        candidates=len(target.examples),
        seconds=time.perf_counter() - started,
    )


def _match(target: Target, effort: Effort, seen: Gradients) -> Tensor:
    """Search with both published recipes and keep the better match, as an attacker can."""
    found = [
        match_gradients(
            target.network,
            seen,
            target.loss.per_sample,
            tuple(target.originals[0].shape),
            replace(search, seconds=effort.seconds / 2),
            torch.Generator().manual_seed(effort.seed),
        )
        for search in (ZHU, GEIPING)
    ]
    return min(found, key=lambda one: one.distance).image[0]


def _audit(target: Target, effort: Effort) -> AuditFinding | None:
    if target.plan is None:
        return None
    started = time.perf_counter()
    shares = plan_shares(target.study)
    if (
        shares is not None and shares.unit == "patient"
    ):  # one hospital's share alone promises nothing: the sum does
        audit = audit_sum(shares, effort.seed, effort.canaries)
    else:
        audit = audit_plan(target.plan, effort.seed, effort.canaries)
    return AuditFinding(
        claimed=audit.claimed,
        proven=audit.bound.epsilon,
        delta=audit.delta,
        confidence=1 - audit.significance,
        canaries=audit.canaries,
        guesses=audit.bound.guesses,
        correct=audit.bound.correct,
        seconds=time.perf_counter() - started,
        shares=0 if shares is None or shares.unit != "patient" else shares.honest,
    )


def _joined(batches: Sequence[Batch]) -> Batch:
    def part(tensors: Sequence[Tensor | None]) -> Tensor | None:
        held = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(held) if held else None

    targets = torch.cat([batch.targets for batch in batches])
    images = part([batch.images for batch in batches])
    return Batch(images, part([batch.covariates for batch in batches]), targets)


def _pictures(target: Target, brought: dict[str, dict[str, list[Tensor]]]) -> AttackPictures | None:
    """Return a row of panels a patient and attack: the original, then by protection."""
    if target.study.data.kind == "table" or not brought:
        return None
    views = (PLAIN, PRIVATE) if target.plan is not None else (PLAIN,)
    if target.beside:
        views = (PLAIN, _views(target)[-1])
    names, rows = [], []
    for name, by_protection in brought.items():
        for index in range(len(by_protection[PLAIN])):
            panels = [target.originals[index], *(by_protection[view][index] for view in views)]
            names.append(name)
            rows.append(np.stack([as_picture(panel, target.study) for panel in panels]))
    labels = ("the patient's image", "seen without protection", "seen with protection")
    return AttackPictures(np.array(names), np.stack(rows), np.array(labels[: 1 + len(views)]))
