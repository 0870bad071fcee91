"""A study goes on from another one across real daemons: replay, promotion, refusal, rollback."""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.leaving.late_town import approve, call, finished, submit_file
from tests.support.stage import CANARY, Deployment, deployed, table_study

from wardround.client.privacy.ledger.file import read_ledger
from wardround.client.privacy.ledger.report import report_ledger
from wardround.common.privacy.accounting import epsilon_of
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.plans.patient_privacy import plan_privacy
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import read_records
from wardround.server.scheduling.folder import RunFolder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
SITES, DELTA = ("north", "south"), 1e-3
PATIENTS = 160
FIRST = with_changes(
    table_study("going on", steps=20, rounds=3, minimum_sites=2), {"continual.wave": 1}
)


def write_waves(folder: Path, seed: int, *approved: Study, policy: str) -> None:
    """Write a manifest in which another value tells the classes apart in wave 2, and a policy."""
    drawn = np.random.default_rng(seed)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "wave", "a", "b"])
        for number in range(PATIENTS):
            label, wave = number % 2, 1 + number // 80
            split = ("train", "train", "validation", "test")[number // 2 % 4]
            told, other = float(drawn.normal(3 * label)), float(drawn.normal())
            values = [told, other] if wave == 1 else [other, told]
            writer.writerow([f"{CANARY}{number}", label, split, wave, *values])
    digests = json.dumps([study.digest for study in approved])
    (folder / "policy.toml").write_text(
        f'{policy}smallest_cohort = 10\nsmallest_cell = 1\nmetrics = "sums"\napproved = {digests}\n'
    )


@contextmanager
def town_of(folder: Path, study: Study, policy: str) -> Iterator[Deployment]:
    """Give a server and the daemons of two hospitals that have approved a study."""
    with deployed(folder) as made:
        made.change_settings(gathering_seconds=1.0)
        made.start_server()
        for seed, name in enumerate(SITES):
            write_waves(made.join(name), seed, study, policy=policy)
        (folder / "first.toml").write_text(study.to_toml())
        for name in SITES:
            made.start_site(name)
        yield made


def said(*words: object) -> Any:
    return json.loads(call(*words, "--json"))


def gone_on(town: Deployment, parent: str, name: str, *words: object) -> tuple[str, Study]:
    """Continue a run, have the sites approve the new study, and wait for its end."""
    out = town.folder / f"{name}.toml"
    told = said("study", "continue", parent, "--server", town.server, "--out", out, *words)
    study = load_study(out)
    assert told["digest"] == study.digest
    run = submit_file(town, out, *SITES)
    approve(town, study.digest, *SITES)
    finished(run)
    return run.name, study


def test_a_study_goes_on_is_promoted_refused_and_taken_back(tmp_path: Path) -> None:
    with town_of(tmp_path, FIRST, "privacy_required = false\n") as town:
        a_model_in_use(town)


def a_model_in_use(town: Deployment) -> None:
    first = finished(submit_file(town, town.folder / "first.toml", *SITES))
    server, shelf = ("--server", town.server), ("--shelf", town.folder / "in-use")
    one = said("runs", "promote", first.name, *server, *shelf)

    second, study = gone_on(town, first.name, "second", "--set", "continual.margin=0.5")
    assert study.continual is not None
    assert (study.continual.parent, study.continual.wave) == (FIRST.digest, 2)
    two = said("runs", "promote", second, *server, *shelf)
    assert [fall["site"] for fall in two["falls"]] == [*SITES, "all sites"]
    assert all(fall["split"] == "validation" for fall in two["falls"])
    assert two["parent"] == one["model"]
    assert said("runs", "promoted", *shelf)[-1]["model"] == two["model"]

    # The new rows alone, learnt so fast that what was known is lost: the model in use stays.
    words = ("--method", "none", "--set", "training.learning_rate=2", "--set", "continual.margin=0")
    bad, _ = gone_on(town, second, "bad", *words, "--wave", 2)
    refused = call("runs", "promote", bad, *server, *shelf, code=2)
    assert "falls beyond the margin at" in refused
    assert said("runs", "promoted", *shelf)[-1]["model"] == two["model"]
    back = said("runs", "rollback", *shelf)
    assert (back["kind"], back["model"]) == ("rollback", one["model"])
    kinds = [line["kind"] for line in said("runs", "promoted", *shelf)]
    assert kinds == ["promote", "promote", "rollback"]
    # What came after the model that is in use no more: it does not go on from the one that is.
    assert "does not go on from it" in call("runs", "promote", bad, *server, *shelf, code=2)
    assert trained_on(town, second) == dict.fromkeys(SITES, 80), "old rows and new ones"
    assert trained_on(town, bad) == dict.fromkeys(SITES, 40), "new rows alone"


def trained_on(town: Deployment, run: str) -> dict[str, int]:
    """Return how many examinations each site trained on in a run's first round."""
    records = read_records(RunFolder(town.server, run).checkpoints / "history.jsonl")
    return {one.site: one.examinations for one in records[0].sites}


def test_what_a_study_that_goes_on_spends_adds_to_what_its_parent_spent(tmp_path: Path) -> None:
    private = {
        "privacy.mode": "patient",
        "privacy.noise_multiplier": 1.5,
        "privacy.delta": DELTA,
        "privacy.sampling_rate": 0.5,
        "privacy.expected_patients": 40,
        "federation.rounds": 2,
    }
    parent = with_changes(FIRST, {"study.name": "private", "training.local_steps": 2, **private})
    policy = f"lifetime_epsilon = 1000.0\nlifetime_delta = {DELTA}\nstudy_epsilon = 100.0\n"
    with town_of(tmp_path, parent, policy) as town:
        first = finished(submit_file(town, town.folder / "first.toml", *SITES))
        second, child = gone_on(town, first.name, "second")
        spent = [plan_privacy(one).spend(2) for one in (parent, child)]
        for name in SITES:
            report = report_ledger(read_ledger(town.site(name)).entries)
            (trained,) = (one for one in report.datasets if one.part == "train")
            assert {run.study for run in trained.runs} == {parent.digest, child.digest}
            assert trained.epsilon == pytest.approx(epsilon_of(spent, DELTA))
            assert trained.epsilon > max(run.epsilon for run in trained.runs)
        words = ("--server", town.server, "--shelf", town.folder / "in-use")
        call("runs", "promote", first.name, *words)
        refused = call("runs", "promote", second, *words, code=2)
        assert "nobody can tell whether a site falls" in refused, "policies tell no validation"
