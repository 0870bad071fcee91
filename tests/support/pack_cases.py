"""Hospitals' test patients as a model answers them, without a model: for tests of packs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.egress.packs.disclosure import placements, reduce_packs, told_patients
from wardround.client.session.packs import MeasuredPacks, Validation
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.messages.packs import (
    SitePacks,
    SitePlacements,
    pack_packs,
    pack_placements,
    unpack_packs,
    unpack_placements,
)
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.packs import PACKS
from wardround.common.study.study import Study
from wardround.server.rounds.evidence.collection import Evidence, merged_counts

RUN = "0" * 32
Floats = NDArray[np.float64]


def table_study_with(pack: Sequence[str] = tuple(PACKS), **changes: Any) -> Study:
    """Return a study of a table with two classes and a sex, which names packs."""
    content: dict[str, Any] = {
        "study": {"name": "evidence", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["well", "ill"],
            "covariates": [{"name": "x"}, {"name": "sex", "values": ["F", "M"]}],
        },
        "model": {"network": "mlp", "features": [4], "normalisation": "layer"},
        "evaluation": {"pack": list(pack), "subgroups": ["sex"], **changes},
    }
    return parse_study(content)


def draw_cases(
    seed: int, patients: int, images: int = 1, shift: float = 1.2
) -> tuple[ClassifiedCases, Floats]:
    """Return the cases of a site, each patient with up to so many images; and their logits."""
    drawn = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), drawn.integers(1, images + 1, patients))
    ill = drawn.random(patients) < 0.4
    latent = drawn.normal(0, 0.7, patients)[whose] + drawn.normal(0, 0.7, len(whose))
    margin = shift * (ill[whose] * 2.0 - 1) + latent
    logits = np.stack([np.zeros(len(margin)), margin], axis=1)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.stack([~ill[whose], ill[whose]], axis=1)
    return ClassifiedCases(np.arange(len(whose)) + 2, whose, scores, truth), logits


def measured(seed: int, patients: int, images: int = 1) -> MeasuredPacks:
    """Return what a site computes its packs from."""
    cases, logits = draw_cases(seed, patients, images)
    other, _ = draw_cases(seed, patients, images, shift=0.4)
    women = np.random.default_rng(seed + 1).random(patients)[cases.patients] < 0.5
    groups = np.stack([women, ~women, np.zeros(len(women), dtype=bool)], axis=1)
    validation = Validation(1.7 * logits, cases.truth, cases.patients)
    return MeasuredPacks(cases, other, groups, validation)


def evidence_of(sites: Mapping[str, MeasuredPacks], study: Study, least: int) -> Evidence:
    """Return what sites tell, through both exchanges and their messages."""
    told = {}
    for name, one in sites.items():
        packs = reduce_packs(one, study, least, PACKS)
        count = told_patients(one.cases, least)
        said = SitePacks(name, study.digest, RUN, 3, count, least, packs)
        told[name] = unpack_packs(pack_packs(said), study)
    merged = merged_counts(told)
    placed = {}
    for name, one in sites.items():
        assert merged is not None
        assert isinstance(one.cases, ClassifiedCases)
        sums = placements(one.cases, merged, study, least)
        answer = pack_placements(SitePlacements(name, study.digest, RUN, 3, sums))
        placed[name] = unpack_placements(answer, study).sums
    return Evidence(told, placed)
