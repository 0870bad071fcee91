"""Server and sites with different versions of Flower, as real processes: make test-flower.

Without a second environment all of it is skipped: 'make test' has no time for it.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.support.stage import (
    ENVIRONMENT,
    Deployment,
    bits_of,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.client.site.enrolment import join
from wardround.server.identity.invitations import invite
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.submission import submit_study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.sites.preparation import prepare_sites

_SITES = ("site-0", "site-1")
_CODE = "import sys; sys.argv[0] = 'wardround'; from wardround.cli import main; main()"
# As a site that was never upgraded: its own checks of Flower's version are not there yet.
_OLD = (
    "from flwr.supercore import version as v; v.package_version = '1.40.2';"
    "from wardround.common.flower.supernode import fleet_client;" + _CODE
)


OTHER = os.environ.get("WARDROUND_OTHER_FLOWER", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
    pytest.mark.skipif(not OTHER, reason="no second Flower: make test-flower makes one"),
]


def flower_of(python: str) -> str:
    code = "from importlib.metadata import version; print(version('flwr'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def start(made: Deployment, name: str, python: str, code: str, *words: object) -> None:
    with (made.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [python, "-c", code, *map(str, words)],
            env=ENVIRONMENT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    made.processes.append(process)


def test_a_site_with_each_flower_and_a_server_train_the_model_of_the_simulation(
    tmp_path: Path,
) -> None:
    """One site has the server's Flower, one the other; with each environment as 'other' in turn."""
    there = flower_of(OTHER)
    assert there.split(".")[:2] != version("flwr").split(".")[:2]
    study = table_study(
        "mixed", write_table(tmp_path, 60, _SITES), rounds=2, minimum_sites=2, strategy="fedavgm"
    )
    with deployed(tmp_path, "127.0.0.1") as made:
        (tmp_path / "split").mkdir()
        folders = prepare_sites(study, tmp_path / "split").folders
        made.start_server()
        for folder, python in zip(folders, (sys.executable, OTHER), strict=True):
            join(invite(made.server, folder.name), folder)
            start(made, folder.name, python, _CODE, "site", "start", folder)
        run = RunFolder(made.server, submit_study(made.server, study).run)
        wait_until(lambda: getattr(run.status(), "state", "") in ("finished", "failed"))
        status = run.status()
        assert status is not None
        assert (status.state, status.sites) == ("finished", _SITES)
        for folder in folders:
            doctor = [OTHER, "-m", "wardround.cli", "site", "doctor", str(folder)]
            said = subprocess.run(doctor, capture_output=True, text=True, check=False).stdout
            assert f"flwr {there} here" in " ".join(said.split())
            assert f"flwr {version('flwr')} there" in " ".join(said.split())
    simulate(SimulationRequest(study, tmp_path / "whole", Machine("cpu", "in-process", threads=1)))
    whole = tmp_path / "whole" / "models" / "federated.safetensors"
    assert bits_of(run.model_path) == bits_of(whole)


def test_a_site_whose_flower_was_not_tested_is_told_so_and_so_is_the_operator(
    tmp_path: Path,
) -> None:
    with deployed(tmp_path) as made:
        made.start_link()
        folder = made.join("north")
        start(made, "north", sys.executable, _OLD, "site", "start", folder)
        wait_until(lambda: "flower-version" in made.log("north"))
        wait_until(lambda: "refused site=north" in made.log("link"))
        seen, said = made.log("link"), made.log("north")
    assert f"it runs flwr 1.40.2, the server {version('flwr')}" in seen
    assert f"flwr {version('flwr')} there" in said
    for log in (seen, said):
        assert "flwr 1.41 or 1.42 at both they work together" in log
        assert "pip install 'flwr>=1.41,<1.43'" in log


def test_a_daemon_and_a_server_with_a_flower_that_was_not_tested_do_not_start(
    tmp_path: Path,
) -> None:
    with deployed(tmp_path) as made:
        link = made.start_link()
        folder = made.join("north")
        link.kill()
        link.wait()
        # What an installation of it leaves, put before the one that is there.
        facts = tmp_path / "packages" / "flwr-1.43.0.dist-info" / "METADATA"
        facts.parent.mkdir(parents=True)
        facts.write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.43.0\n")
        environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path / "packages")}
        for words in (("site", "start", folder), ("server", "start", made.server)):
            done = subprocess.run(
                [sys.executable, "-m", "wardround.cli", *map(str, words)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 3, done.stdout + done.stderr
            said = " ".join((done.stdout + done.stderr).split())
            assert "works with flwr 1.41 and 1.42, and flwr 1.43.0 is installed" in said
            assert "Traceback" not in said
