"""A server that was given one study and asks for more: later rounds, new runs, false instructions.

It asks the worker process of a site's daemon, as the daemon does. Each of these was red on b4151c0.
"""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from tests.support.hospitals.hospital import STUDY, write_site
from tests.support.stage import wait_until

from wardround.client.daemon.job_files import JobFiles
from wardround.client.daemon.jobs import Done, Job
from wardround.client.daemon.worker_handle import WarmWorker
from wardround.client.privacy.ledger.file import LEDGER_FOLDER, read_ledger
from wardround.client.privacy.ledger.report import report_ledger
from wardround.common.flower.messages.message_file_writer import write_message
from wardround.common.flower.messages.message_loading import read_message
from wardround.common.flower.site_grid import claim_identity
from wardround.common.messages.instructions import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Instruction,
    new_run,
    pack_instruction,
)
from wardround.common.messages.replies import unpack_update
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
LIMIT = 1_000_000_000
EPSILON, ROUNDS = 1.0, 5
PRIVACY = {"mode": "patient", "sampling_rate": 0.1, "expected_patients": 30}


def study_of(**sections: dict[str, object]) -> Study:
    content = STUDY.model_dump(exclude_defaults=True)
    for name, changes in sections.items():
        content[name] = {**content.get(name, {}), **changes}
    return parse_study(content)


PRIVATE = study_of(federation={"rounds": ROUNDS}, privacy={**PRIVACY, "epsilon": EPSILON})
PLAIN = study_of(training={"local_steps": 2})


@dataclass(frozen=True, slots=True)
class AskedSite:
    """A site whose worker is asked for a study, message by message."""

    folder: Path
    worker: WarmWorker

    def ask(self, content: RecordDict, kind: str, text: str) -> Done:
        files = JobFiles(self.folder / "state")
        claim_identity(1)
        write_message(files.instruction, Message(content, 7, kind, group_id="round"))
        paths = str(files.instruction), str(files.reply), str(self.folder)
        return self.worker.reply(Job(*paths, text, LIMIT))

    def follow(self, study: Study, instruction: Instruction, kind: str = TRAIN) -> str:
        """Return the word of a refusal, "" where there is an answer."""
        return self.ask(pack_instruction(instruction), kind, study.to_json()).refused

    def describe(self, text: str) -> str:
        content = RecordDict({"instruction": ConfigRecord()})
        return self.ask(content, DESCRIBE, text).refused

    def updates(self, study: Study) -> int:
        """Return the steps of the answer that lies there."""
        reply = JobFiles(self.folder / "state").reply
        return unpack_update(read_message(reply, LIMIT).content, study).updates

    def epsilon(self) -> float:
        (dataset,) = report_ledger(read_ledger(self.folder).entries).datasets
        return dataset.epsilon


Hospital = Callable[..., AskedSite]


@pytest.fixture(scope="module")
def worker() -> Iterator[WarmWorker]:
    made = WarmWorker((), lambda: False)
    yield made
    made.stop()


@pytest.fixture
def hospital(tmp_path: Path, worker: WarmWorker) -> Hospital:
    """A site that has approved some studies once, and a worker process."""

    def made(*studies: Study, **policy: str) -> AskedSite:
        policy.setdefault("approved", json.dumps([study.digest for study in studies]))
        return AskedSite(write_site(tmp_path / "north", **policy), worker)

    return made


def instruction_for(study: Study, number: int, run: str, attempt: int = 0) -> Instruction:
    initial = read_parameters(build_network(study, 0))
    return Instruction(study.digest, run, number, initial, attempt=attempt)


def greedy_instructions(study: Study) -> Iterator[Instruction]:
    """Ask for all that the study says, then for later rounds, other attempts, and new runs."""
    run, rounds = new_run(), study.federation.rounds
    for number in range(1, 4 * rounds):
        yield instruction_for(study, number, run)
    for number, attempt in product(range(1, rounds + 1), range(1, 4)):
        yield instruction_for(study, number, run, attempt)
    for other in (new_run(), new_run(), new_run()):
        for number in range(1, rounds + 1):
            yield instruction_for(study, number, other)


# --- 4: a study that protects its patients ------------------------------------------------------
@pytest.mark.parametrize("refused", ["study", "round"])
def test_a_study_approved_at_epsilon_1_gives_its_rounds_and_epsilon_1(
    hospital: Hospital, wardround: Callable[..., object], tmp_path: Path, refused: str
) -> None:
    north = hospital(PRIVATE, refused_above_the_cap=f'"{refused}"')
    words = Counter(north.follow(PRIVATE, one) for one in greedy_instructions(PRIVATE))
    assert words[""] == ROUNDS
    assert set(words) == {"", "failed", "approval"}, (
        "a later round is none, another run is too many"
    )
    assert north.epsilon() <= EPSILON
    entries = len(read_ledger(north.folder).entries)
    for _ in range(20):
        assert north.follow(PRIVATE, instruction_for(PRIVATE, 1, new_run())) == "approval"
    assert len(read_ledger(north.folder).entries) == entries, "a server fills no ledger with runs"
    approve(wardround, tmp_path, north, PRIVATE)
    words = Counter(north.follow(PRIVATE, one) for one in greedy_instructions(PRIVATE))
    assert words[""] == ROUNDS
    assert EPSILON < north.epsilon() < 2 * EPSILON


def test_a_round_that_is_trained_anew_costs_the_last_one(hospital: Hospital) -> None:
    north, run = hospital(PRIVATE), new_run()
    assert north.follow(PRIVATE, instruction_for(PRIVATE, 1, run)) == ""
    for reply in (north.folder / "outbox").iterdir():
        reply.unlink()  # the disk lost it before the server had it
    words = [north.follow(PRIVATE, instruction_for(PRIVATE, n, run)) for n in (1, 2, 3, 4, 5)]
    assert words == ["", "", "", "", "approval"]
    assert north.epsilon() <= EPSILON


# --- 5: a study without ---------------------------------------------------------------------------
def test_without_privacy_an_approval_ends_after_a_number_of_rounds(
    hospital: Hospital, wardround: Callable[..., object], tmp_path: Path
) -> None:
    north = hospital(PLAIN)
    allowed = 2 * PLAIN.federation.rounds
    for times in (1, 2):
        words = Counter(north.follow(PLAIN, one) for one in greedy_instructions(PLAIN))
        assert words[""] == allowed
        assert set(words) == {"", "input", "approval"}
        counted = (north.folder / "rounds" / f"{PLAIN.digest}.jsonl").read_bytes()
        assert counted.count(b"\n") == times * allowed
        kill(north.worker)
        assert north.follow(PLAIN, instruction_for(PLAIN, 1, new_run())) == "approval"
        assert PLAIN.digest[:16] in wardround("site", "pending", north.folder).out  # type: ignore[attr-defined]
        approve(wardround, tmp_path, north, PLAIN)


def test_a_training_that_is_killed_is_counted(hospital: Hospital) -> None:
    endless = study_of(training={"local_steps": 2_000_000}, federation={"rounds": 1})
    north, said = hospital(endless), list[str]()
    counter = north.folder / "rounds" / f"{endless.digest}.jsonl"

    def ask() -> None:
        said.append(north.follow(endless, instruction_for(endless, 1, new_run())))

    asking = threading.Thread(target=ask)
    asking.start()
    for number in (1, 2):  # the daemon gives a message to a second worker
        wait_until(lambda n=number: counter.exists() and counter.read_bytes().count(b"\n") == n)
        kill(north.worker)
    asking.join()
    assert said == ["training"]
    assert north.follow(endless, instruction_for(endless, 1, new_run())) == "approval"


# --- 11: false instructions ----------------------------------------------------------------------
def false_instructions(study: Study) -> Iterator[Instruction]:
    good, rounds = instruction_for(study, 1, new_run()), study.federation.rounds
    first, *others = good.parameters
    for digest in ("", "0" * 64, study.digest[:16], "9" * 200):
        yield replace(good, digest=digest)
    for number in (0, rounds + 1, 2**31 - 1):
        yield replace(good, round=number)
    yield replace(good, attempt=2**31 - 1)
    yield replace(good, run="f" * 31)
    yield replace(good, split="training")
    yield replace(good, kept_round=rounds + 1)
    yield replace(good, counted_round=rounds + 1)
    weight = good.parameters[first]
    for other in (weight.double(), weight[:1], weight.flatten(), torch.zeros(0)):
        yield replace(good, parameters={**good.parameters, first: other})
    yield replace(good, parameters={name: good.parameters[name] for name in others})
    yield replace(good, parameters={})
    yield replace(good, parameters={**good.parameters, "more": weight})
    yield replace(good, auxiliary={"control/" + first: weight})


@pytest.mark.parametrize("study", [PRIVATE, PLAIN])
def test_a_false_instruction_costs_nothing_and_writes_nothing(
    hospital: Hospital, study: Study
) -> None:
    north = hospital(study)
    for false in false_instructions(study):
        assert north.follow(study, false) in ("input", "training", "failed"), false
    for name in (LEDGER_FOLDER, "rounds", "outbox"):
        assert not (north.folder / name).exists(), name
    assert north.follow(study, instruction_for(study, 1, new_run())) == ""


@pytest.mark.parametrize("privacy", [{}, {**PRIVACY, "epsilon": EPSILON}])
def test_a_false_control_variate_costs_nothing(
    hospital: Hospital, privacy: dict[str, object]
) -> None:
    study = study_of(federation={"strategy": "scaffold"}, privacy=privacy)
    north, good = hospital(study), instruction_for(study, 1, new_run())
    right = {"control/" + name: torch.zeros_like(one) for name, one in good.parameters.items()}
    name = next(iter(right))
    false = [{}, {**right, "more": torch.zeros(1)}, {**right, name: torch.zeros(1)}]
    for one in false:
        assert north.follow(study, replace(good, auxiliary=one)) == (
            "failed" if privacy else "input"
        )
    if privacy:
        for absurd in (torch.inf, torch.nan, 1e9):
            one = {**right, name: right[name] + absurd}
            assert north.follow(study, replace(good, auxiliary=one)) == "policy"
    assert not (north.folder / LEDGER_FOLDER).exists()
    assert not (north.folder / "rounds").exists()
    if not privacy:
        assert north.follow(study, replace(good, auxiliary=right)) == ""


def test_a_later_round_is_not_evaluated_either(hospital: Hospital) -> None:
    north, good = hospital(PLAIN), instruction_for(PLAIN, PLAIN.federation.rounds, new_run())
    assert north.follow(PLAIN, good, EVALUATE) == ""
    assert north.follow(PLAIN, replace(good, round=good.round + 1), EVALUATE) == "input"


def test_a_simulated_site_trains_any_number_of_runs_and_no_later_round(hospital: Hospital) -> None:
    north = hospital(simulated="true", approved='"any"')
    for _ in range(4):
        run, rounds = new_run(), PLAIN.federation.rounds
        words = [north.follow(PLAIN, instruction_for(PLAIN, n, run)) for n in range(1, rounds + 2)]
        assert words == [""] * rounds + ["input"]
    assert not (north.folder / "rounds").exists()


# --- 13: one study in many words -----------------------------------------------------------------
def test_thirty_texts_of_one_study_are_one_study_in_memory(hospital: Hospital) -> None:
    study = study_of(model={"features": [2048, 2048]})  # 17 MB
    north = hospital(study)
    content = json.loads(study.to_json())

    def grown(texts: Iterator[str]) -> float:
        """Return by how many MB the worker grows over texts."""
        held = psutil.Process(north.worker.process_id)
        before = held.memory_info().rss
        for text in texts:
            assert north.describe(text) == ""
        return float(held.memory_info().rss - before) / 1e6

    grown(iter([study.to_json()]))
    assert grown(json.dumps({**content, "simulation": {"seed": n}}) for n in range(15)) < 50
    assert grown(json.dumps(content, indent=n) for n in range(15)) < 50


def test_of_many_studies_the_last_stay_in_memory(hospital: Hospital) -> None:
    studies = [
        study_of(model={"features": [2048, 2048]}, federation={"seed": n}) for n in range(10)
    ]
    north = hospital(*studies)
    held, sizes = psutil.Process(north.worker.process_id), list[int]()
    for study in studies:
        assert north.describe(study.to_json()) == ""
        sizes.append(held.memory_info().rss)
    assert (sizes[-1] - sizes[2]) / 1e6 < 60


def kill(worker: WarmWorker) -> None:
    killed = worker.process_id
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not _lives(killed))


def _lives(process: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


def approve(wardround: Callable[..., object], folder: Path, north: AskedSite, study: Study) -> None:
    path = folder / "study.toml"
    path.write_text(study.to_toml(), encoding="utf-8")
    said = wardround("site", "approve", path, "--site", north.folder)
    assert said.code == 0, said.err  # type: ignore[attr-defined]
