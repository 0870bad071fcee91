"""The engine "stacked": the models of a single process after every round, and its refusals."""

import copy
import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from wardround.client.app import held_session
from wardround.client.session import ahead
from wardround.client.site.folder import AUDIT_FOLDER
from wardround.client.training.schedule import FullMemoryError
from wardround.client.training.stacked.steps import StackedSite, StackedWork, train_stacked
from wardround.common.errors import InputError, RunError
from wardround.common.parameters.arithmetic import difference
from wardround.common.parameters.schema import Parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.loop import RoundFinished
from wardround.simulations.engines import stacked
from wardround.simulations.engines.in_process import InProcessGrid
from wardround.simulations.engines.stacked import (
    CPU_BYTES,
    StacksWork,
    is_faster_stacked,
    require_stackable,
    sites_a_stack,
)
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.sites.site_folders import write_open_policy

ROUNDS, PATIENTS = 2, (12, 20, 9, 31)
ALONE, STACKED = Machine(engine="in-process", threads=1), Machine(engine="stacked", threads=1)
Train = Callable[..., list[StackedWork | None]]


def study_with(**sections: dict[str, Any]) -> Study:
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "stacked", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["a", "b"],
            "covariates": [{"name": "x"}, {"name": "y"}],
        },
        "model": {"network": "mlp", "features": [8]},
        "training": {"optimiser": "sgd", "learning_rate": 0.1, "batch_size": 4},
        "federation": {"rounds": ROUNDS},
        "evaluation": {"metric": "loss", "keep": "last", "validation_fraction": 0.2},
    }
    return parse_study({**content, **{k: {**content.get(k, {}), **v} for k, v in sections.items()}})


def write_sites(root: Path) -> list[Path]:
    """Write sites of unequal size: unequal numbers of steps, and unequal last batches."""
    folders = []
    for number, patients in enumerate(PATIENTS):
        folder, drawn = root / f"site-{number}", random.Random(number)
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "site-{number}"\n', encoding="utf-8")
        write_open_policy(folder)
        with (folder / "manifest.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient", "label", "x", "y"])
            for patient in range(patients):
                label = patient % 2
                x, y = drawn.gauss(label, 0.7), drawn.gauss(-label, 0.7)
                writer.writerow([f"p{patient}", "ab"[label], f"{x:.4f}", f"{y:.4f}"])
        folders.append(folder)
    return folders


def run(root: Path, study: Study, machine: Machine) -> list[Parameters]:
    """Return the model after each round."""
    folders, models = write_sites(root / "sites"), list[Parameters]()
    store = CheckpointStore(root / "checkpoints")

    def listen(event: RoundFinished) -> None:
        commit = store.latest()
        assert commit is not None
        models.append(commit.parameters)

    with open_grid(folders, study, machine) as grid:
        run_federation(grid, study, root / "checkpoints", listen)
    return models


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sites each stack had."""
    seen: list[int] = []

    def counted(network: Any, sites: Sequence[StackedSite]) -> list[StackedWork | None]:
        seen.append(len(sites))
        return train_stacked(network, sites)

    monkeypatch.setattr(ahead, "train_stacked", counted)
    return seen


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"training": {"optimiser": "adam", "class_weights": "balanced", "schedule": "cosine"}},
        {"training": {"local_epochs": 2, "gradient_clip": 0.5, "momentum": 0.9}},
        {"federation": {"strategy": "fedprox"}},
        {"federation": {"strategy": "scaffold"}},
        {"federation": {"strategy": "feddyn"}},
        pytest.param({"federation": {"strategy": "fedper"}}, marks=pytest.mark.long),
        pytest.param({"federation": {"compression": "float16"}}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_every_round_ends_with_the_model_of_one_site_after_the_other(
    tmp_path: Path, stacks: list[int], sections: dict[str, dict[str, Any]]
) -> None:
    study = study_with(**sections)
    alone, together = run(tmp_path / "a", study, ALONE), run(tmp_path / "b", study, STACKED)
    assert stacks == [len(PATIENTS)] * ROUNDS
    assert len(alone) == len(together) == ROUNDS
    coarse = 1e-3 if "compression" in sections.get("federation", {}) else 1e-5
    for one, other in zip(alone, together, strict=True):
        assert difference(one, other) < coarse


def test_each_site_still_says_and_writes_down_all_that_it_would(tmp_path: Path) -> None:
    study = study_with()
    run(tmp_path / "a", study, ALONE)
    run(tmp_path / "b", study, STACKED)
    for number in range(len(PATIENTS)):
        said = [written_by(tmp_path / run / "sites" / f"site-{number}") for run in "ab"]
        assert len(said[0]) > ROUNDS
        assert said[0] == said[1]


def written_by(site: Path) -> list[tuple[object, ...]]:
    """Return what a site's audit log says of each message, but for times and hashes."""
    (log,) = (site / AUDIT_FOLDER).rglob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    events = [line.get("event", line) for line in lines]
    return [tuple(e.get(k) for k in ("kind", "round", "attempt", "verdict")) for e in events]


def test_a_site_whose_loss_is_no_number_says_so_itself(tmp_path: Path) -> None:
    study = study_with(training={"learning_rate": 1e9})
    with pytest.raises(RunError, match=r"site-0: the training loss is .* after \d+ steps"):
        run(tmp_path, study, STACKED)


def test_a_site_whose_patients_were_swapped_in_between_trains_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stacks: list[int]
) -> None:
    trained_ahead = StacksWork.__call__

    def swap(self: StacksWork, message: Message, waiting: Sequence[Message]) -> None:
        trained_ahead(self, message, waiting)
        session = held_session(self._contexts[message.metadata.dst_node_id])
        if session is not None:
            other = copy.copy(session.cohorts.train)
            session.cohorts = replace(session.cohorts, train=other)

    study = study_with()
    monkeypatch.setattr(StacksWork, "__call__", swap)
    swapped = run(tmp_path / "a", study, STACKED)
    monkeypatch.undo()
    honest = run(tmp_path / "b", study, ALONE)
    assert stacks
    assert all(difference(*pair) == 0 for pair in zip(swapped, honest, strict=True))


def test_a_stack_that_does_not_fit_is_halved_and_costs_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuse(asked: Sequence[object]) -> None:
        tried.append(len(asked))
        if len(asked) > 2:
            msg = "the memory of the GPU is full"
            raise FullMemoryError(msg)
        ahead.train_ahead(asked)  # type: ignore[arg-type] # what the engine passes

    monkeypatch.setattr(stacked, "train_ahead", refuse)
    together, alone = (
        run(tmp_path / name, study_with(), machine)
        for name, machine in (("b", STACKED), ("a", ALONE))
    )
    assert tried == [4, 2, 2]
    assert difference(alone[-1], together[-1]) < 1e-5


# --- Which studies -------------------------------------------------------------
@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"training": {"loss": "cross-entropy", "precision": "bfloat16"}}, "bfloat16"),
        ({"model": {"normalisation": "batch"}}, "couples the examples of a batch"),
        ({"federation": {"buffer_size": 2}}, "asked one by one"),
        ({"simulation": {"adversary": [{"kind": "sign-flip", "count": 1}]}}, "hostile sites"),
    ],
    ids=str,
)
def test_a_study_that_cannot_be_stacked_is_refused_with_the_reason(
    sections: dict[str, dict[str, Any]], reason: str
) -> None:
    study = study_with(**sections)
    with pytest.raises(InputError, match=reason) as refusal:
        STACKED.for_study(study)
    assert "--engine auto" in str(refusal.value)


def test_a_study_that_can_be_stacked_is_not_refused() -> None:
    require_stackable(study_with())


@pytest.mark.parametrize(
    ("study", "sites", "device", "wins"),
    [
        (study_with(), 4, "cpu", True),
        (study_with(), 3, "cpu", False),
        (study_with(), 64, "cuda:0", False),
        (study_with(training={"batch_size": 5000}), 64, "cpu", False),
        (study_with(model={"features": [256, 128]}), 64, "cpu", False),
        (study_with(model={"normalisation": "batch"}), 64, "cpu", False),
    ],
)
def test_auto_takes_a_stack_only_where_one_was_measured_to_win(
    study: Study, sites: int, device: str, wins: bool
) -> None:
    assert is_faster_stacked(study, sites, device) == wins


@pytest.mark.parametrize(("workers", "is_stacked"), [(1, True), (2, False)])
def test_auto_stacks_where_it_has_one_worker_and_gives_several_their_own_sites(
    tmp_path: Path, workers: int, is_stacked: bool
) -> None:
    machine = Machine(device="cpu", workers=workers, threads=1)
    with open_grid(write_sites(tmp_path), study_with(), machine) as grid:
        assert (isinstance(grid, InProcessGrid) and grid._before is not None) == is_stacked


def test_a_stack_holds_what_the_cache_does_and_never_fewer_than_four() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    small, large = study_with(), study_with(training={"batch_size": 65_536})
    assert sites_a_stack(small, cpu) == CPU_BYTES // (2 * 4 * 4)
    assert sites_a_stack(small, gpu) > sites_a_stack(small, cpu)
    assert sites_a_stack(large, cpu) == 4
