"""Whole runs in which each site adds its share of the noise before its update is masked."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.integration.masking.test_runs import run
from tests.support.hospitals.table_sites import study_for

from wardround.client.egress.masking import MaskedSite
from wardround.client.privacy.ledger.entries import Released, Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.replies import SiteUpdate
from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.study.plans.distributed_noise import SHARE
from wardround.common.study.plans.patient_privacy import plan_privacy
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine

ROUNDS = 2


def study_of(**changes: object) -> Study:
    base = {
        "federation.secure_aggregation": True,
        "federation.rounds": ROUNDS,
        "federation.minimum_sites": 3,
        "evaluation.keep": "last",
        "model.normalisation": "none",
        "model.features": [],
        "training.local_steps": 1,
        "training.learning_rate": 0.5,
        "privacy.mode": "patient",
        "privacy.noise": "distributed",
        "privacy.noise_multiplier": 2.0,
        "privacy.sampling_rate": 0.5,
        "privacy.expected_patients": 14,
    }
    return study_for("fedavg", **{**base, **changes})


def ledger_of(root: Path, site: str = "site-0") -> Iterator[object]:
    return (entry.fact for entry in read_ledger(root / "sites" / site).entries)


Coded = list[tuple[VectorLayout, Words, SiteUpdate, Instruction]]


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> Coded:
    kept: Coded = []
    plain = MaskedSite._encode

    def encode(
        self: MaskedSite, layout: VectorLayout, update: SiteUpdate, instruction: Instruction
    ) -> Words:
        words = plain(self, layout, update, instruction)
        kept.append((layout, words, update, instruction))
        return words

    monkeypatch.setattr(MaskedSite, "_encode", encode)
    return kept


def test_the_model_goes_along_the_sum_of_gradients_and_shares(tmp_path: Path, coded: Coded) -> None:
    study = study_of()
    last, records = run(tmp_path, study)
    assert len(coded) == 3 * ROUNDS
    layout, _, _, instruction = coded[-1]
    total = np.sum([words for _, words, _, _ in coded[-3:]], axis=0, dtype="<u8")
    found = layout.decode(total, instruction.parameters, rate=0.5)
    model, counted = found.model, found.counted
    assert all(bool((model[name] == last[name]).all()) for name in last)
    assert (counted.weight, counted.examinations, counted.steps, counted.loss) == (3, 3, 3, 0.0)
    assert counted.metrics is None
    assert all(math.isnan(site.training_loss) for site in records[0].sites)
    # What a site coded is its gradient, and noise of about one share.
    for layout, words, update, instruction in coded:
        noise = []
        for spec in layout.model:
            change = update.parameters[spec.name].double() - instruction.parameters[spec.name]
            noise.append(change.flatten().numpy() / layout.plan.grid.step)
        length = sum(map(len, noise))
        shares = layout.plan.grid.sums_of(words)[:length] - np.concatenate(noise)
        assert np.abs(shares).min() > 0
        assert np.abs(shares).max() < 8 * SHARE


def test_each_round_is_charged_what_holds_against_the_server_and_its_helpers(
    tmp_path: Path,
) -> None:
    study = study_of(**{"federation.minimum_sites": 5, "federation.rounds": 1})
    run(tmp_path, study, sites=5)
    facts = list(ledger_of(tmp_path))
    charged = [fact for fact in facts if isinstance(fact, Reserved)]
    assert [(one.sampling_rate, one.noise_multiplier, one.steps) for one in charged] == [
        (0.5, 2.0, 1)
    ]
    assert len([fact for fact in facts if isinstance(fact, Released)]) == 1
    spent = epsilon_of([Spend(0.5, 2.0, 1)], study.privacy.delta)
    assert spent == pytest.approx(plan_privacy(study).epsilon)


def test_a_site_as_unit_makes_several_steps_and_its_patients_are_charged(tmp_path: Path) -> None:
    study = study_of(
        **{
            "privacy.mode": "site",
            "privacy.noise_multiplier": 6.0,
            "privacy.sampling_rate": 0.05,
            "privacy.expected_patients": None,
            "training.local_steps": 3,
            "federation.rounds": 1,
        }
    )
    run(tmp_path, study)
    charged = [fact for fact in ledger_of(tmp_path) if isinstance(fact, Reserved)]
    assert [(one.sampling_rate, one.noise_multiplier) for one in charged] == [(1.0, 3.0)]


def test_noise_of_each_site_may_leave_under_masks_too(tmp_path: Path) -> None:
    study = study_of(**{"privacy.noise": "local", "training.local_steps": 2})
    _, records = run(tmp_path, study)
    assert all(site.examinations == 1 for site in records[0].sites)
    charged = [fact for fact in ledger_of(tmp_path) if isinstance(fact, Reserved)]
    assert [one.steps for one in charged] == [2] * ROUNDS


@pytest.mark.long
def test_a_pool_of_workers_adds_shares_as_well(tmp_path: Path) -> None:
    _, records = run(tmp_path, study_of(), Machine(engine="pool", workers=2, threads=1))
    assert len(records[0].sites) == 3


@pytest.mark.long
def test_little_noise_learns_what_no_noise_learns(tmp_path: Path) -> None:
    """Epsilon without end: the masked gradients are those of the clear federation."""
    loud = study_of(**{"federation.rounds": 40, "privacy.noise_multiplier": 0.3})
    model, _ = run(tmp_path, loud)
    assert float(model["1.weight"].abs().max()) > 0.1
