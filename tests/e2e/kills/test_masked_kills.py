"""A masked round between real daemons, one of which is killed with -9 in a stage.

Five hospitals mask; one is killed for good as soon as its audit log says that it has answered a
stage. The run goes on with the four others, and ends in the model of the same run in one process in
which the same site stays away, to the last bit. ``make long`` kills one that has masked;
``WARDROUND_STAGES=advertise,share,mask,agree,unmask`` (half a minute each) kills one after each
stage, and the server, which goes on with all five. ``make faults FAULTS="33 33b ..."`` kills sites
that come back.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
from flwr.app import RecordDict

from wardround.client.egress.masking import MaskedSite
from wardround.client.policy.approvals import decide
from wardround.common.errors import RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import digest
from wardround.common.security.peers import write_peers
from wardround.common.study.loading import parse_study, with_changes
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.operators.client import ServerLine, server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.experiment.federation import (
    Machine,
    introduce,
    open_grid,
    run_federation,
)
from wardround.simulations.local_federation.processes import SERVER_FOLDER, LocalFederation
from wardround.simulations.local_federation.run import begin, write_trial_policy
from wardround.simulations.run_files.events import nobody

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
SITES, VICTIM, ROUNDS = tuple(f"site-{number}" for number in range(5)), "site-2", 2
STAGES = ("advertise", "share", "mask", "agree", "unmask")
CHOSEN = os.environ.get("WARDROUND_STAGES", "mask").split(",")
_PATIENCE_SECONDS = 240.0
STUDY = parse_study(
    {
        "study": {"name": "masked", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["no", "yes"],
            "covariates": [{"name": n, "mean": 0.0, "scale": 1.0} for n in ("a", "b")],
        },
        "model": {"network": "mlp", "features": [4]},
        "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": 3},
        "federation": {
            "rounds": ROUNDS,
            "minimum_sites": 3,
            "deadline_seconds": 15.0,
            "secure_aggregation": True,
        },
        "evaluation": {"keep": "last"},
    }
)

# All sites are waited for while they find the server again.
PATIENT = with_changes(STUDY, {"federation.deadline_seconds": 90.0})


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made, drawn = [], random.Random(0)
    for name in SITES:
        folder = tmp_path / "sites" / name
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
        rows = ["patient,label,split,a,b"]
        for patient in range(40):
            label = patient % 2
            values = f"{drawn.gauss(label, 1):.3f},{drawn.gauss(0, 1):.3f}"
            split = ("train", "train", "train", "validation", "test")[patient // 2 % 5]
            rows.append(f"p{patient},{('no', 'yes')[label]},{split},{values}")
        (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
        write_trial_policy(folder, STUDY)
        made.append(folder)
    return made


@pytest.fixture
def federation(tmp_path: Path, folders: list[Path]) -> Iterator[LocalFederation]:
    with LocalFederation(tmp_path, {"OMP_NUM_THREADS": "1"}) as started:
        begin(started, folders, nobody)
        write_peers(started.server, introduce(folders))
        for folder in folders:
            for study in (STUDY, PATIENT):
                decide(folder, study.digest, "approved")
        yield started


def answered(folder: Path) -> int:
    """Return how many stages a site has answered, by its audit log."""
    log = folder / "audit" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return sum(json.loads(line).get("kind") in ("masking", "update") for line in lines if line)


def model_in_one_process(
    root: Path, folders: list[Path], has_masked: bool, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the digest of the model that the same run ends in without the victim's later parts.

    Args:
        folders: Copies of the site folders, from before the run.
        has_masked: Whether the victim is in the sum of round 1.
    """
    plain = MaskedSite.train

    def train(
        self: MaskedSite, instruction: Instruction, work: Callable[[], SiteUpdate]
    ) -> RecordDict:
        is_gone = instruction.round > 1 or not has_masked
        if self.session.site.name == VICTIM and is_gone:
            msg = "killed"
            raise RunError(msg)
        return plain(self, instruction, work)

    monkeypatch.setattr(MaskedSite, "train", train)
    with open_grid(folders, STUDY, Machine(engine="in-process", threads=1)) as grid:
        return digest(run_federation(grid, STUDY, root / "checkpoints").parameters)


def wait_for_stage(site: Path, stage: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while answered(site) < STAGES.index(stage) + 1:
        assert time.monotonic() < until
        time.sleep(0.02)


def require_finished(line: ServerLine, run: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not (summary := line.show(run).summary).is_over:
        assert time.monotonic() < until, summary
        time.sleep(0.2)
    assert summary.state == "finished", summary.message


@pytest.mark.parametrize("stage", CHOSEN)
def test_a_daemon_killed_in_a_masked_round_costs_the_others_nothing(
    stage: str,
    federation: LocalFederation,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies = [Path(copytree(one, tmp_path / "copies" / one.name)) for one in folders]
    victim = next(folder for folder in folders if folder.name == VICTIM)
    with server_at(str(federation.server)) as line:
        name = line.submit(Submission(STUDY.to_toml(), "toml", SITES)).run
        wait_for_stage(victim, stage)
        os.kill(federation.child(VICTIM).pid, signal.SIGKILL)
        killed = time.monotonic()
        require_finished(line, name)
    assert time.monotonic() - killed < 60
    store = CheckpointStore(RunFolder(federation.server, name).checkpoints)
    records = [one for one in read_records(store.history_path) if one.sites]
    others = [site for site in SITES if site != VICTIM]
    assert [site.site for site in records[-1].sites] == others
    # Its log is written before its answer is sent: the kill may come in between.
    has_masked = VICTIM in [site.site for site in records[0].sites]
    assert has_masked or stage != "agree"
    expected = model_in_one_process(tmp_path / "simulated", copies, has_masked, monkeypatch)
    assert digest(dict(store.model(ROUNDS))) == expected


@pytest.mark.parametrize("stage", CHOSEN)
def test_a_server_killed_in_a_masked_round_goes_on_to_the_same_sum(
    stage: str,
    federation: LocalFederation,
    folders: list[Path],
    tmp_path: Path,
) -> None:
    copies = [Path(copytree(one, tmp_path / "copies" / one.name)) for one in folders]
    watched = next(folder for folder in folders if folder.name == VICTIM)
    with server_at(str(federation.server)) as line:
        name = line.submit(Submission(PATIENT.to_toml(), "toml", SITES)).run
    wait_for_stage(watched, stage)
    os.kill(federation.child(SERVER_FOLDER).pid, signal.SIGKILL)
    killed = time.monotonic()
    federation.child(SERVER_FOLDER).end(0.0)
    federation.start_server()
    with server_at(str(federation.server)) as line:
        require_finished(line, name)
    assert time.monotonic() - killed < 60
    store = CheckpointStore(RunFolder(federation.server, name).checkpoints)
    records = [one for one in read_records(store.history_path) if one.sites]
    assert all([site.site for site in record.sites] == list(SITES) for record in records)
    with open_grid(copies, PATIENT, Machine(engine="in-process", threads=1)) as grid:
        expected = run_federation(grid, PATIENT, tmp_path / "checkpoints").parameters
    assert digest(dict(store.model(ROUNDS))) == digest(expected)
