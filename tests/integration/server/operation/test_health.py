"""What a monitor, the hospital and the operator are told of a site that cannot take part."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.full_disk import small_disk
from tests.faults.not_here import NotHereError
from tests.support.stage import (
    WARDROUND,
    Deployment,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.common.study.study import Study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a daemon runs under POSIX")
PACKAGING = Path(__file__).resolve().parents[4] / "packaging"


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as made:
        yield made


def health_check(kind: str, folder: Path) -> int:
    """Run the check of a Dockerfile, and return its exit code."""
    text = (PACKAGING / f"Dockerfile.{kind}").read_text()
    found = re.search(r"^HEALTHCHECK[^[]*CMD (\[.*\])$", text, re.M)
    assert found is not None
    _, *words = json.loads(found[1])
    return say(*[folder if word == f"/wardround/{kind}" else word for word in words]).returncode


def say(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*WARDROUND, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def written(study: Study, deployment: Deployment) -> Path:
    """Write a study to a file, which a site that was not asked for it yet approves it from."""
    path = deployment.folder / "study.toml"
    path.write_text(study.to_toml())
    return path


@pytest.mark.long
@pytest.mark.slow
def test_health_checks_fail_while_a_site_is_not_connected(deployment: Deployment) -> None:
    server = deployment.start_server()
    north = deployment.join("north")
    server.terminate()
    server.wait()
    write_table(north, 40)
    assert health_check("site", north) == 3  # no daemon
    assert health_check("server", deployment.server) == 3
    deployment.start_site("north")
    wait_until(lambda: say("site", "status", north, "--json").stdout)
    assert health_check("site", north) == 3  # no server
    assert "NOT CONNECTED" in say("site", "status", north).stdout
    server = deployment.start_server()
    wait_until(lambda: deployment.status("north").connected_since)
    assert health_check("site", north) == 0
    assert health_check("server", deployment.server) == 0
    server.kill()
    server.wait()
    wait_until(lambda: health_check("site", north) == 3)
    assert json.loads(say("site", "status", north, "--json").stdout)["connected_since"] == ""


@pytest.mark.long
def test_an_empty_folder_is_told_how_a_hospital_makes_a_site(tmp_path: Path) -> None:
    for words in (("doctor",), ("status",), ("start",), ("pending",)):
        said = say("site", *words, tmp_path)
        text = " ".join((said.stdout + said.stderr).split())
        assert said.returncode in (1, 2), words
        assert "not a site folder" in text, words
        assert "site join" in text, words
        assert "wardround split" not in text


@pytest.mark.long
@pytest.mark.slow
def test_a_bad_cell_is_the_same_fault_to_doctor_status_and_log(deployment: Deployment) -> None:
    study = table_study("cells", minimum_sites=1)
    deployment.start_server()
    north = deployment.join("north")
    manifest = write_table(north, 40)
    manifest.write_text(manifest.read_text().replace(",train,", ",trian,", 1))
    (north / "policy.toml").write_text("privacy_required = false\nsmallest_cohort = 10\n")
    assert say("site", "approve", written(study, deployment), "--site", north).returncode == 0
    (north / "state" / "pending").mkdir(parents=True)
    (north / "state" / "pending" / f"{study.digest}.toml").write_text(study.to_toml())
    doctor = json.loads(say("site", "doctor", north, "--json").stdout)
    (found,) = [check for check in doctor if check["name"] == "studies"]
    assert found["status"] == "fail"
    assert "row 2" in found["fact"]
    assert "CANARY" not in found["fact"]
    assert str(north) not in found["fact"]
    deployment.start_site("north")
    wait_until(lambda: say("site", "status", north).returncode == 0)
    said = say(
        "study", "submit", written(study, deployment), "--server", deployment.server, "--json"
    )
    assert said.returncode == 0, said.stderr
    wait_until(lambda: "refusal: data" in say("site", "status", north).stdout)
    assert "row 2" in deployment.log("north")


@pytest.mark.long
@pytest.mark.slow
def test_a_disk_that_is_full_before_a_study_is_the_same_fault_to_all(
    deployment: Deployment,
) -> None:
    study = table_study("full", minimum_sites=1)
    deployment.start_server()
    north = deployment.join("north")
    write_table(north, 40)
    (north / "policy.toml").write_text("privacy_required = false\nsmallest_cohort = 10\n")
    path = written(study, deployment)
    assert say("site", "approve", path, "--site", north).returncode == 0
    try:
        with small_disk(north, deployment.folder / "disk.img", 8) as disk:
            deployment.start_site("north")
            wait_until(lambda: say("site", "status", north).returncode == 0)
            disk.fill()
            said = say("study", "submit", path, "--server", deployment.server, "--json")
            run = json.loads(said.stdout)["run"]
            shown = ("runs", "show", run, "--server", deployment.server)
            wait_until(lambda: "disk is full" in " ".join(say(*shown).stdout.split()))
            status = say("site", "status", north).stdout
            assert "the site's disk is full" in status  # what was refused
            assert "disk: 0.0 GB free" in status
            doctor = json.loads(say("site", "doctor", north, "--json").stdout)
            assert ("disk", "fail") in [(check["name"], check["status"]) for check in doctor]
            disk.clear()
            assert say("site", "stop", north).returncode == 0
    except NotHereError as error:
        pytest.skip(str(error))
