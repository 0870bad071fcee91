"""A server and a site are lost, with all that was in their folders, and come back from a backup."""

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stage import (
    WARDROUND,
    Deployment,
    bits_of,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.client.site.enrolment import join
from wardround.common.study.study import Study
from wardround.server.identity.invitations import invite
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.sites.preparation import prepare_sites

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a daemon runs under POSIX"),
]
ROUNDS, SITES = 12, ("site-0", "site-1")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path / "d") as made:
        yield made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    manifest = write_table(tmp_path, 60, SITES)
    federation = {"rounds": ROUNDS, "minimum_sites": len(SITES), "strategy": "fedavgm"}
    return table_study("restored", manifest, **federation)


@pytest.fixture
def sites(deployment: Deployment, study: Study) -> list[Path]:
    """Server and daemons, connected."""
    place = deployment.folder / "split"
    place.mkdir()
    folders = list(prepare_sites(study, place).folders)
    deployment.start_server()
    for folder in folders:
        join(invite(deployment.server, folder.name), folder)
        deployment.spawn(folder.name, "wardround.cli", "site", "start", folder)
    return folders


@pytest.fixture(autouse=True)
def tmp_is_made(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(exist_ok=True)


def say(*words: object) -> str:
    command = [*WARDROUND, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status_of(deployment: Deployment, run: str) -> RunStatus | None:
    return RunFolder(deployment.server, run).status()


def has_done(deployment: Deployment, run: str, number: int) -> bool:
    status = status_of(deployment, run)
    assert status is None or status.state not in ("failed", "stopped"), status
    return status is not None and status.round >= number


def submit(deployment: Deployment, study: Study, path: Path) -> str:
    path.write_text(study.to_toml())
    said = say("study", "submit", path, "--server", deployment.server, "--json")
    return str(json.loads(said)["run"])


def test_a_run_goes_on_from_a_backup_of_the_running_server_to_the_same_model(
    deployment: Deployment, study: Study, sites: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    run = submit(deployment, study, tmp_path / "study.toml")
    wait_until(lambda: has_done(deployment, run, 2))
    say("server", "backup", deployment.server, file)  # while it trains
    assert file.stat().st_mode & 0o077 == 0
    server = deployment.processes[0]
    server.kill()
    server.wait()
    shutil.rmtree(deployment.server)
    said = say("server", "restore", file, deployment.server)
    assert "revoked after that is a member again" in said
    runs = RunFolder(deployment.server, run).checkpoints
    assert len(list(runs.glob("round-*"))) >= 1
    deployment.start_server()
    assert all(process.poll() is None for process in deployment.processes[1:])  # nobody joined anew
    wait_until(lambda: has_done(deployment, run, ROUNDS))
    wait_until(lambda: "finished" in say("runs", "show", run, "--server", deployment.server))
    simulate(SimulationRequest(study, tmp_path / "whole", Machine("cpu", "in-process", threads=1)))
    whole = tmp_path / "whole" / "models" / "federated.safetensors"
    assert bits_of(RunFolder(deployment.server, run).model_path) == bits_of(whole)


def test_a_site_comes_back_from_its_backup_with_its_keys(
    deployment: Deployment, study: Study, sites: list[Path], tmp_path: Path
) -> None:
    north, file = sites[0], tmp_path / "north.tar"
    first = submit(deployment, study, tmp_path / "study.toml")
    wait_until(lambda: has_done(deployment, first, ROUNDS))
    said = say("site", "backup", north, file, "--keys")  # while its daemon runs
    assert "private keys" in said
    assert file.stat().st_mode & 0o077 == 0
    daemon = deployment.processes[1]
    daemon.kill()
    daemon.wait()
    shutil.rmtree(north)
    say("site", "restore", file, north)
    entries = say("site", "audit", "verify", north)
    assert "each as it was written and signed" in entries
    assert (north / "parts" / "patients.jsonl").exists()
    deployment.spawn(north.name, "wardround.cli", "site", "start", north)
    again = submit(deployment, study, tmp_path / "study.toml")
    wait_until(lambda: has_done(deployment, again, ROUNDS))


def test_a_backup_without_keys_has_none_and_the_site_joins_anew(
    deployment: Deployment, study: Study, sites: list[Path], tmp_path: Path
) -> None:
    north, file = sites[0], tmp_path / "north.tar"
    run = submit(deployment, study, tmp_path / "study.toml")
    wait_until(lambda: has_done(deployment, run, 2))
    say("site", "backup", north, file)
    with tarfile.open(file) as archive:
        names = archive.getnames()
        content = b"".join(archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]
    assert b"PRIVATE KEY" not in content
    assert {"site.toml", "policy.toml", "manifest.csv", "parts/patients.jsonl"} <= set(names)
    deployment.processes[1].kill()
    deployment.processes[1].wait()
    shutil.rmtree(north)
    assert "invite" in say("site", "restore", file, north)
    (former,) = (north / "former").iterdir()
    assert "each as it was written" in say("site", "audit", "verify", former)
    say("server", "revoke", north.name, "--server", deployment.server)
    token = say("server", "invite", north.name, "--server", deployment.server).strip()
    say("site", "join", token, "--folder", north)
    deployment.spawn(north.name, "wardround.cli", "site", "start", north)
    wait_until(lambda: json.loads(say("site", "status", north, "--json"))["connected_since"])
