"""Every task and option over one Ray, and across real daemons of two hospitals."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from tests.support.hospitals.every_task import CASES, SITES, study_of, write_hospitals
from tests.support.stage import ENVIRONMENT, WARDROUND, bits_of

from wardround.client.policy.approvals import decide
from wardround.common.parameters.model_file import load_model
from wardround.common.study.study import Study
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.engines.in_process import site_contexts
from wardround.simulations.engines.ray_engine import AssignedClientApp
from wardround.simulations.experiment.federation import Machine, run_federation
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import begin, write_trial_policy
from wardround.simulations.run_files.events import nobody
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [pytest.mark.slow, pytest.mark.long]
ALONE = Machine("cpu", "in-process", threads=1)
_PATIENCE_SECONDS = 120.0
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
)


def test_one_ray_trains_every_task_s_model_of_one_process(tmp_path: Path) -> None:
    """Half a minute: a Ray with one worker, whose two sites take part in a study after the other.

    With ``simulate --engine ray`` each study starts an actor of its own, which takes longer than
    its training; that each trains there too was seen by hand.
    """
    pytest.importorskip("ray", reason="Ray is not installed: make install")
    from wardround.common.flower.ray.runtime import RayPlan, open_ray

    class OfEachStudy(ClientApp):  # defined here, so that it travels to the actor by value
        def __init__(self, apps: dict[str, AssignedClientApp]) -> None:
            super().__init__()
            self._apps = apps

        def __call__(self, message: Message, context: Context) -> Message:
            digest = str(message.content.config_records["instruction"]["digest"])
            return self._apps[digest](message, context)

    hospitals = write_hospitals(tmp_path)
    studies = {name: study_of(name, hospitals) for name in CASES}
    apps = {}
    for place, study in enumerate(studies.values()):
        folders = prepare_sites(study, tmp_path / f"over-ray-{place}").folders
        contexts = site_contexts(folders, study.to_json(), "cpu", 1)
        apps[study.digest] = AssignedClientApp(list(contexts.values()), 1)
    with open_ray(OfEachStudy(apps), RayPlan(sites=len(SITES))) as grid:
        for place, (name, study) in enumerate(studies.items()):
            commit = run_federation(grid, study, tmp_path / f"rounds-{place}")
            expected = load_model(_simulated(name, hospitals, tmp_path)).parameters
            assert commit.parameters.keys() == expected.keys(), name
            for tensor, value in expected.items():
                found = commit.parameters[tensor]
                assert (found - value).abs().max() <= 1e-5, (name, tensor)


@pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX")
def test_daemons_train_the_model_of_a_simulation(tmp_path: Path) -> None:
    """A minute: the command for one study, then one town that trains eight, one after the other."""
    hospitals = write_hospitals(tmp_path)
    tried = _tried(study_of("detection in volumes", hospitals), tmp_path)
    assert bits_of(tried) == bits_of(_simulated("detection in volumes", hospitals, tmp_path))

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
            assert bits_of(trained) == bits_of(_simulated(name, hospitals, tmp_path)), name
    said = "".join(path.read_text() for path in (town / "logs").glob("*.log"))
    assert "CANARY" not in said


def _tried(study: Study, folder: Path) -> Path:
    place = folder / "tried.toml"
    place.write_text(study.to_toml())
    words = ("federation", "try", place, "--threads", "1", "--out", folder / "tried", "--json")
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


def _simulated(name: str, hospitals: Path, folder: Path) -> Path:
    """Return the model that one process trains of a case."""
    out = folder / f"simulated-{name}"
    simulate(SimulationRequest(study_of(name, hospitals), out, ALONE))
    return out / "models" / "federated.safetensors"


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
