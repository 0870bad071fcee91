"""A masked round between real daemons, one of which is killed with -9 in a stage.

Five hospitals mask; one is killed as soon as its audit log says that it has answered a stage. The
run goes on with the four others, and its last model is the plain sum of what those four kept on
their disks, to the last bit. ``make long`` kills one that has masked;
``WARDROUND_STAGES=advertise,share,mask,agree`` (half a minute each) kills one after each stage.
"""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wardround.client.policy.approvals import decide
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import schema
from wardround.common.security.peers import write_peers
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.experiment.federation import introduce
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import begin, write_trial_policy
from wardround.simulations.run_files.events import nobody

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
SITES, VICTIM, ROUNDS = tuple(f"site-{number}" for number in range(5)), "site-2", 2
STAGES = ("advertise", "share", "mask", "agree")
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


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made, drawn = [], random.Random(0)
    for name in SITES:
        folder = tmp_path / "sites" / name
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
        rows = ["patient,label,a,b"]
        for patient in range(40):
            label = patient % 2
            values = f"{drawn.gauss(label, 1):.3f},{drawn.gauss(0, 1):.3f}"
            rows.append(f"p{patient},{('no', 'yes')[label]},{values}")
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
            decide(folder, STUDY.digest, "approved")
        yield started


def answered(folder: Path) -> int:
    """Return how many stages a site has answered, by its audit log."""
    log = folder / "audit" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return sum(json.loads(line).get("kind") in ("masking", "update") for line in lines if line)


def exact_model(folders: list[Path], store: CheckpointStore, run: str, study: Study) -> str:
    """Return the digest of the model that the survivors' own words add up to."""
    plan, start = plan_masking(study), dict(store.model(ROUNDS - 1))
    assert plan is not None
    words = [
        np.frombuffer((folder / "masking" / run / "words").read_bytes(), dtype="<u8")
        for folder in folders
        if folder.name != VICTIM
    ]
    layout = VectorLayout.of(study, plan, schema(start))
    return digest(layout.decode(np.sum(words, axis=0, dtype="<u8"), start)[0])


@pytest.mark.parametrize("stage", CHOSEN)
def test_a_daemon_killed_in_a_masked_round_costs_the_others_nothing(
    stage: str, federation: LocalFederation, folders: list[Path]
) -> None:
    victim = next(folder for folder in folders if folder.name == VICTIM)
    with server_at(str(federation.server)) as line:
        name = line.submit(Submission(STUDY.to_toml(), "toml", SITES)).run
        until = time.monotonic() + _PATIENCE_SECONDS
        while answered(victim) < STAGES.index(stage) + 1:
            assert time.monotonic() < until, line.show(name).summary
            time.sleep(0.02)
        os.kill(federation.child(VICTIM).pid, signal.SIGKILL)
        while not (summary := line.show(name).summary).is_over:
            assert time.monotonic() < until, summary
            time.sleep(0.2)
    assert summary.state == "finished", summary.message
    store = CheckpointStore(RunFolder(federation.server, name).checkpoints)
    records = [one for one in read_records(store.history_path) if one.sites]
    others = [site for site in SITES if site != VICTIM]
    assert [site.site for site in records[-1].sites] == others
    commit = store.latest()
    assert commit is not None
    run = commit.progress.run
    assert digest(dict(store.model(ROUNDS))) == exact_model(folders, store, run, STUDY)
