"""Whole runs whose rounds are not the plain kind: asynchronous, compressed, partial."""

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wardround.common.metrics.task_sums import MetricValue
from wardround.common.parameters.arithmetic import difference, digest
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.server.rounds.loop import RoundFinished
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.sites.site_folders import write_open_policy

ROUNDS, SITES = 6, 4
ALONE, POOL = Machine(engine="in-process", threads=1), Machine(engine="pool", workers=2, threads=1)


def study_with(**federation: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "kinds", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["a", "b"],
                "covariates": [{"name": "x"}, {"name": "y"}],
            },
            "model": {"network": "mlp", "features": [16]},
            "training": {"optimiser": "sgd", "learning_rate": 0.2, "local_steps": 4},
            "federation": {"rounds": ROUNDS, **federation},
            "evaluation": {"metric": "loss", "keep": "last"},
        }
    )


def write_sites(root: Path) -> list[Path]:
    folders = []
    for number in range(SITES):
        folder = root / "sites" / f"site-{number}"
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "site-{number}"\n', encoding="utf-8")
        write_open_policy(folder)
        drawn = random.Random(number)
        with (folder / "manifest.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient", "label", "x", "y"])
            for patient in range(60):
                label = patient % 2
                x, y = drawn.gauss(label, 0.7), drawn.gauss(-label, 0.7)
                writer.writerow([f"p{patient}", "ab"[label], f"{x:.4f}", f"{y:.4f}"])
        folders.append(folder)
    return folders


def run(
    root: Path, study: Study, machine: Machine = ALONE, stop_after: int = 0
) -> tuple[Commit, list[RoundRecord]]:
    folders = (
        write_sites(root)
        if not (root / "sites").exists()
        else sorted(path for path in (root / "sites").iterdir())
    )

    def listen(event: RoundFinished) -> None:
        if event.record.round == stop_after:
            raise KeyboardInterrupt

    with open_grid(folders, study, machine) as grid:
        commit = run_federation(grid, study, root / "checkpoints", listen)
    return commit, read_records(CheckpointStore(root / "checkpoints").history_path)


def validation_loss(records: list[RoundRecord]) -> tuple[float, float]:
    """Return the loss of the first and of the last model, over all sites."""

    def value(values: tuple[MetricValue, ...]) -> float:
        return next(v.value for v in values if v.metric == "loss")

    measured = [r for r in records if r.measurements]
    return value(measured[0].measurements[-1].values), value(measured[-1].measurements[-1].values)


@pytest.mark.parametrize("machine", [ALONE, POOL], ids=["in-process", "pool"])
def test_an_asynchronous_model_moves_on_after_each_buffer_and_learns(
    tmp_path: Path, machine: Machine
) -> None:
    commit, records = run(tmp_path, study_with(buffer_size=2), machine)
    trained = [record for record in records if record.sites]
    assert commit.progress.round == ROUNDS
    assert [record.round for record in trained] == list(range(1, ROUNDS + 1))
    for record in trained:
        names = [site.site for site in record.sites]
        assert len(names) >= 2
        assert len(set(names)) == len(names), "a site counts once a model"
    everybody = Counter(site.site for record in trained for site in record.sites)
    assert len(everybody) == SITES, "nobody is left waiting for ever"
    first, last = validation_loss(records)
    assert last < 0.8 * first


def test_a_buffer_of_all_sites_is_the_ordinary_round(tmp_path: Path) -> None:
    ordinary, _ = run(tmp_path / "a", study_with())
    buffered, _ = run(tmp_path / "b", study_with(buffer_size=SITES))
    assert difference(ordinary.parameters, buffered.parameters) < 1e-6


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2), ("int8", 1e-2), ("int4", 0.1)]
)
def test_a_compressed_run_ends_near_the_uncompressed_one(
    tmp_path: Path, kind: str, tolerance: float
) -> None:
    plain, _ = run(tmp_path / "plain", study_with())
    compressed, _ = run(tmp_path / kind, study_with(compression=kind))
    assert 0 < difference(plain.parameters, compressed.parameters) < tolerance


def test_a_compressed_run_that_is_stopped_keeps_what_it_still_owes(tmp_path: Path) -> None:
    study = study_with(compression="top-k", kept_fraction=0.2)
    whole, _ = run(tmp_path / "whole", study)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", study, stop_after=3)
    resumed, _ = run(tmp_path / "cut", study)
    assert digest(resumed.parameters) == digest(whole.parameters)


@pytest.mark.long
def test_a_round_of_half_the_sites_asks_half_of_them_and_the_pool_the_same(tmp_path: Path) -> None:
    study = study_with(fraction=0.5)
    standalone, records = run(tmp_path / "alone", study)
    pooled, _ = run(tmp_path / "pool", study, POOL)
    assert {len(record.sites) for record in records if record.sites} == {2}
    assert digest(standalone.parameters) == digest(pooled.parameters)
