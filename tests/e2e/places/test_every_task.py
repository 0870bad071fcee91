"""Every task and option over one Ray, and across real daemons of two hospitals."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.support.hospitals.every_task import CASES, SITES, study_of, write_hospitals
from tests.support.places.ray_nodes import ray_nodes
from tests.support.stage import ENVIRONMENT, WARDROUND, bits_of

from wardround.client.policy.approvals import decide
from wardround.common.study.study import Study
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.engines.ray_engine import RayOptions
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import begin, write_trial_policy
from wardround.simulations.run_files.events import nobody
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [pytest.mark.slow, pytest.mark.long]
ALONE = Machine("cpu", "in-process", threads=1)
_PATIENCE_SECONDS = 300.0
# Of a study over daemons it takes seconds to begin: each of these has messages of its own.
ACROSS = (
    "detection",
    "regression",
    "late fusion",
    "frozen layers",
    "harmonised images",
    "ComBat",
    "pretraining",
    "survival",
    "covariances of all hospitals",
)


def model_of(run: Path) -> Path:
    return run / "models" / "federated.safetensors"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_one_ray_trains_every_task_s_model_of_one_process(part: int, tmp_path: Path) -> None:
    """A third of the tasks, a minute: a node with one worker, a run after the other.

    Most of it is the start of an actor for each run; all 15 took 239 s on a busy machine.
    """
    pytest.importorskip("ray", reason="Ray is not installed: make install")
    hospitals = write_hospitals(tmp_path)
    with ray_nodes(tmp_path) as nodes:
        nodes.start()
        options = RayOptions(f"127.0.0.1:{nodes.port}")
        ray = Machine("cpu", "ray", threads=1, ray=options)
        for place, name in enumerate(list(CASES)[part::3]):
            study = study_of(name, hospitals)
            models = []
            for kind, machine in (("one", ALONE), ("ray", ray)):
                out = tmp_path / f"{kind}-{place}"
                simulate(SimulationRequest(study, out, machine))
                models.append(load_file(model_of(out)))
            expected, found = models
            assert found.keys() == expected.keys(), name
            for tensor, value in expected.items():
                assert abs(found[tensor] - value).max() <= 1e-5, (name, tensor)


@pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX")
def test_daemons_train_the_model_of_a_simulation(tmp_path: Path) -> None:
    """A minute: the command for one study, then one town that trains nine, one after the other."""
    hospitals = write_hospitals(tmp_path)
    tried = _tried(study_of("detection in volumes", hospitals), tmp_path)
    assert bits_of(tried) == _simulated("detection in volumes", hospitals, tmp_path)

    town, first = tmp_path / "t", study_of(ACROSS[0], hospitals)
    folders = prepare_sites(first, town).folders
    assert tuple(folder.name for folder in folders) == SITES
    for folder in folders:
        write_trial_policy(folder, first)
    with LocalFederation(town, {"OMP_NUM_THREADS": "1"}) as federation:
        begin(federation, folders, nobody)
        for place, name in enumerate(ACROSS):
            study = study_of(name, hospitals)
            for table in prepare_sites(study, tmp_path / f"tables-{place}").folders:
                shutil.copy(table / "manifest.csv", town / "sites" / table.name)
            trained = _trained(federation, study, folders)
            assert bits_of(trained) == _simulated(name, hospitals, tmp_path), name
    said = "".join(path.read_text() for path in (town / "logs").glob("*.log"))
    assert "CANARY" not in said


def _tried(study: Study, folder: Path) -> Path:
    place = folder / "tried.toml"
    place.write_text(study.to_toml())
    words = (
        "federation",
        "try",
        place,
        "--rounds",
        "1",
        "--threads",
        "1",
        "--out",
        folder / "tried",
        "--json",
    )
    said = subprocess.run(
        [*WARDROUND, *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return Path(json.loads(said.stdout)["model"])


def _simulated(name: str, hospitals: Path, folder: Path) -> str:
    out = folder / f"simulated-{name}"
    simulate(SimulationRequest(study_of(name, hospitals), out, ALONE))
    return bits_of(model_of(out))


def _trained(federation: LocalFederation, study: Study, folders: tuple[Path, ...]) -> Path:
    """Submit a study that every site approves, and wait for its model."""
    for folder in folders:
        decide(folder, study.digest, "approved")
    with server_at(str(federation.server)) as line:
        run = line.submit(Submission(study.to_toml(), "toml", SITES)).run
        until = time.monotonic() + _PATIENCE_SECONDS
        while not (details := line.show(run)).summary.is_over:
            federation.require_alive()
            assert time.monotonic() < until, f"hangs: {details.summary}"
            time.sleep(0.1)
    assert details.summary.state == "finished", details.summary.message
    return RunFolder(federation.server, run).model_path
