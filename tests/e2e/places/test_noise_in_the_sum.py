"""Noise in the sum alone, between real daemons: the study of a simulation, and its charges."""

import os
import random
import time
from pathlib import Path

import pytest

from wardround.client.policy.approvals import decide
from wardround.client.privacy.ledger.entries import Released, Reserved
from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.parameters.arithmetic import digest
from wardround.common.security.peers import write_peers
from wardround.common.study.loading import parse_study
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
SITES, RATE, _PATIENCE_SECONDS = ("east", "north", "west"), 0.25, 300.0
STUDY = parse_study(
    {
        "study": {"name": "noised-sum", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["no", "yes"],
            "covariates": [{"name": n, "mean": 0.0, "scale": 1.0} for n in ("a", "b")],
        },
        "model": {"network": "mlp", "features": [4], "normalisation": "none"},
        "training": {"optimiser": "sgd", "learning_rate": RATE, "local_steps": 1},
        "federation": {"rounds": 2, "minimum_sites": 3, "secure_aggregation": True},
        "privacy": {
            "mode": "patient",
            "noise": "distributed",
            "noise_multiplier": 2.0,
            "sampling_rate": 0.5,
        },
        "evaluation": {"keep": "last"},
    }
)


def write_site(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n', encoding="utf-8")
    drawn = random.Random(folder.name)
    rows = [
        f"p{number},{('no', 'yes')[number % 2]},{drawn.gauss(number % 2, 1):.3f},0.1"
        for number in range(40)
    ]
    (folder / "manifest.csv").write_text("\n".join(["patient,label,a,b", *rows]), encoding="utf-8")
    write_trial_policy(folder, STUDY)
    return folder


def test_daemons_add_their_shares_and_are_charged_for_each_round(tmp_path: Path) -> None:
    folders = [write_site(tmp_path / "sites" / name) for name in SITES]
    with LocalFederation(tmp_path, {"OMP_NUM_THREADS": "1"}) as federation:
        begin(federation, folders, nobody)
        write_peers(federation.server, introduce(folders))
        for folder in folders:
            decide(folder, STUDY.digest, "approved")
        with server_at(str(federation.server)) as line:
            name = line.submit(Submission(STUDY.to_toml(), "toml", SITES)).run
            until = time.monotonic() + _PATIENCE_SECONDS
            while not (summary := line.show(name).summary).is_over:
                assert time.monotonic() < until, summary
                time.sleep(0.2)
    assert summary.state == "finished", summary.message
    store = CheckpointStore(RunFolder(federation.server, name).checkpoints)
    before, after = dict(store.model(1)), dict(store.model(2))
    assert digest(after) != digest(before)
    assert all(bool(values.isfinite().all()) for values in after.values())
    for folder in folders:
        facts = [entry.fact for entry in read_ledger(folder).entries]
        charged = [one for one in facts if isinstance(one, Reserved)]
        assert [(one.noise_multiplier, one.steps) for one in charged] == [(2.0, 1)] * 2
        assert len([one for one in facts if isinstance(one, Released)]) == 2
        # A share of the noise, taken off the sum, would bring less noise to the others.
        assert not list((folder / "masking").rglob("words")), "what was masked is erased at the end"
