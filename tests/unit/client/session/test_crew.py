"""A site whose devices train together: as one device does, and over when one of them is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hospitals.private_ward import plan_with, update_of, ward_of
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import StepComputation
from wardround.client.session.model_context import ModelContext
from wardround.client.session.parallel import hiring
from wardround.client.session.parallel.crew import Crew, divided
from wardround.client.session.parallel.shares import share_sizes
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError, RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

DEVICES = ("cpu", "cpu")
SIDE = 8
TRAINED = 11  # in batches of 5, 5 and 1: the last has fewer examples than processes


def study_of(side: int = SIDE, **sections: dict[str, Any]) -> Study:
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "together", "task": "classification"},
        "data": {"classes": ["a", "b"], "channels": ["x"], "dimensions": 2, "size": [side] * 2},
        "model": {"network": "small-cnn", "features": [4, 6], "normalisation": "batch"},
        "training": {"batch_size": 5, "local_epochs": 2, "optimiser": "sgd", "learning_rate": 0.1},
    }
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return parse_study(content)


def write_site(folder: Path, devices: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    random, rows = np.random.default_rng(0), ["patient,image,label,split"]
    for number in range(TRAINED + 4):
        np.save(folder / f"{number}.npy", random.normal(number % 2, 1, (SIDE, SIDE)).astype("f4"))
        split = "train" if number < TRAINED else ("validation", "test")[number % 2]
        rows.append(f"p{number},{number}.npy,{'ab'[number % 2]},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    said = f"\ndevices = {list(devices)}" if devices else ""
    (folder / "site.toml").write_text('name = "north"' + said.replace("'", '"'))
    return folder


def session_of(folder: Path, study: Study) -> SiteSession:
    site = open_site(folder)
    return SiteSession(site, ModelContext.build(study, site.settings.first_device))


def order_of(session: SiteSession, number: int = 1) -> Instruction:
    study = session.context.study
    network = build_network(study, study.federation.seed)
    shared = session.context.layout.shared_part(read_parameters(network))
    return Instruction(study.digest, "run", number, shared)


def apart(ours: Parameters, theirs: Parameters) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def is_running(process_id: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.fixture
def together(tmp_path: Path) -> Iterator[SiteSession]:
    yield session_of(write_site(tmp_path / "two", DEVICES), study_of())
    hiring.end_crews()


def crew_of(session: SiteSession) -> Crew:
    crew = session._trainer.crew(session.site)
    assert crew is not None
    return crew


def test_two_processes_train_as_one_device_does_and_end_with_a_word_when_one_is_killed(
    tmp_path: Path, together: SiteSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalisation, uneven batches, a last batch of one; then kill -9 in a step."""
    standalone = session_of(write_site(tmp_path / "one"), together.context.study)
    alone = standalone.train(order_of(standalone))
    update = together.train(order_of(together))
    assert apart(update.parameters, alone.parameters) < 1e-6
    assert update.training_loss == pytest.approx(alone.training_loss, abs=1e-6)
    assert update.digest == alone.digest

    crew, steps = crew_of(together), 0
    (other,) = crew.process_ids
    forward = crew.forward

    def forward_and_kill(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal steps
        steps += 1
        found = forward(inputs)
        if steps == 2:
            os.kill(other, signal.SIGKILL)
        return found

    monkeypatch.setattr(crew, "forward", forward_and_kill)
    started = time.monotonic()
    with pytest.raises(RunError, match=r"process 2 of 2, on cpu, ended .*\(signal 9\)"):
        together.train(order_of(together))
    assert time.monotonic() - started < 30
    assert not crew.is_alive
    assert not is_running(other)


@pytest.fixture(scope="module")
def private() -> Iterator[tuple[Crew, nn.Module, Study]]:
    study = study_of(
        4,
        model={"normalisation": "group", "network": "small-cnn", "features": [4]},
        privacy={"mode": "patient", "noise_multiplier": 20.0},
        training={"local_epochs": None},
        evaluation={"keep": "last"},
    )
    network = build_network(study, 1).train()
    crew = Crew(study, network, DEVICES)
    yield crew, network, study
    crew.close()


def private_update(
    private: tuple[Crew, nn.Module, Study], method: str, crew: Crew | None, noise: float = 0.0
) -> Tensor:
    _, network, study = private
    network.load_state_dict(build_network(study, 1).state_dict())
    plan = plan_with(noise_multiplier=noise, steps=2)
    computation = StepComputation(method, 4, 1, crew)
    return update_of(ward_of([3, 1, 2, 1, 1]), plan, network, computation)


@pytest.mark.parametrize(
    "method", ["ghost", pytest.param("opacus-hooks", marks=[pytest.mark.long])]
)
def test_a_private_step_of_two_processes_is_that_of_one(
    private: tuple[Crew, nn.Module, Study], method: str
) -> None:
    alone = private_update(private, method, None)
    both = private_update(private, method, private[0])
    assert float((alone - both).abs().max()) < 1e-6
    assert float(alone.abs().max()) > 1e-3


def test_the_noise_is_drawn_once(private: tuple[Crew, nn.Module, Study]) -> None:
    alone = private_update(private, "ghost", None)
    noise = torch.cat([private_update(private, "ghost", private[0], 100.0) for _ in range(12)])
    # Of two steps; a second draw in each would make it 1.41 times as wide.
    assert float(noise.std()) / (100.0 * 2**0.5) == pytest.approx(1.0, rel=0.1)
    assert len(noise) == 12 * len(alone)


@given(counts=st.lists(st.integers(1, 9), max_size=12), size=st.integers(1, 5))
def test_patients_are_divided_whole_in_order_and_about_evenly(counts: list[int], size: int) -> None:
    rows = torch.arange(sum(counts))
    batch = PatientBatch(Batch(rows[:, None].float(), None, rows), tuple(counts))
    parts = divided(batch, size)
    assert len(parts) == size
    assert [count for part in parts for count in part.counts] == counts
    assert torch.equal(torch.cat([part.examples.targets for part in parts]), rows)
    most = sum(counts) / size + max(counts, default=0)
    assert all(len(part.examples) <= most for part in parts)


@given(examples=st.integers(0, 50), size=st.integers(1, 9))
def test_examples_are_divided_evenly(examples: int, size: int) -> None:
    sizes = share_sizes(examples, size)
    assert sum(sizes) == examples
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('devices = ["cuda:0"]', "name at least two GPUs"),
        ('devices = ["cuda:0", "cuda:0"]', "each once"),
        ('devices = ["cuda:0", "cpu"]', "cannot train together"),
        ('devices = ["cuda", "cuda:1"]', "a GPU such as cuda:0"),
        ('device = "cuda:0"\ndevices = ["cuda:0", "cuda:1"]', "both set"),
    ],
)
def test_devices_that_cannot_train_together_are_refused(
    tmp_path: Path, said: str, words: str
) -> None:
    (tmp_path / "site.toml").write_text(f'name = "north"\n{said}')
    with pytest.raises(DataError, match=words):
        open_site(tmp_path)


_PARENT = """
import sys, time, torch
from pathlib import Path
from tests.unit.client.session.test_crew import DEVICES, study_of
from wardround.client.session.parallel.crew import Crew
from wardround.common.models.networks.registry import build_network
study = study_of()
crew = Crew(study, build_network(study, 1).train(), DEVICES)
print(*crew.process_ids, flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_no_process_stays_when_the_first_one_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert parent.stdout is not None
    others = [int(word) for word in parent.stdout.readline().split()]
    assert others
    assert all(map(is_running, others))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(map(is_running, others)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, others))
