"""``wardround study canary`` over a real server and three daemons, each with another fault."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.hospitals.hospital import write_policy
from tests.support.stage import (
    CANARY,
    ENVIRONMENT,
    WARDROUND,
    Deployment,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.common.study.study import Study

pytestmark = pytest.mark.long
SITES = ("east", "north", "south")
# Read by every Python of the daemon, so by its worker too.
_OTHER_RELEASE = "import wardround\nwardround.__version__ = '99.0.0'\n"


def _say(made: Deployment, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WARDROUND, *(str(word) for word in words)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "WARDROUND_SERVER": str(made.server), "COLUMNS": "80"},
        check=False,
    )


def _prepare(made: Deployment, study: Study, folder: Path) -> Path:
    """Make three sites: one of another release, one without a class, one with a bad cell."""
    made.start_server()
    for name in SITES:
        site = made.join(name)
        write_table(site, 120)
        policy = {"smallest_cohort": "5", "smallest_cell": "5"}
        write_policy(site, approved=f'["{study.digest}"]', **policy)
    manifest = made.site("north") / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",1,", ",0,"))
    manifest = made.site("south") / "manifest.csv"
    lines = manifest.read_text().splitlines()
    lines[90] = lines[90].rpartition(",")[0] + ",high"
    manifest.write_text("\n".join(lines) + "\n")
    (folder / "other").mkdir()
    (folder / "other" / "sitecustomize.py").write_text(_OTHER_RELEASE)
    paths = os.pathsep.join([str(folder / "other"), os.environ.get("PYTHONPATH", "")])
    made.start_site("east", PYTHONPATH=paths)
    made.start_site("north")
    made.start_site("south")
    path = folder / "study.toml"
    path.write_text(study.to_toml())
    return path


def test_three_faults_are_said_in_one_table_before_the_study_begins(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("c")
    study = table_study("before", rounds=20, minimum_sites=3)
    with deployed(folder) as made:
        path = _prepare(made, study, folder)
        wait_until(lambda: _say(made, "sites", "list").stdout.count("yes") == len(SITES))

        said = _say(made, "study", "canary", path)
        assert said.returncode == 3, said.stderr
        assert max(map(len, said.stdout.split("would fail:")[0].splitlines())) <= 80
        assert "would fail: east, version: it runs wardround 99.0.0" in said.stdout
        assert "would fail: north, classes: no training patient is of one of" in said.stdout
        assert "would fail: south, data: the manifest cannot be used" in said.stdout
        assert "0 of 3 sites get through a round, and 3 are needed" in said.stdout
        assert CANARY not in said.stdout + said.stderr
        assert "row 91" in made.log("south")

        # The study itself may wait beside its canary; mended sites are found to be so.
        write_table(made.site("north"), 120)
        write_table(made.site("south"), 120)
        assert _say(made, "study", "submit", path).returncode == 0
        again = _say(made, "study", "canary", path, "--site", "north", "--site", "south")
        assert again.returncode == 2
        assert "the study needs 3 sites and is given 2" in again.stderr
        again = _say(made, "study", "canary", path, "--json")
        assert again.returncode == 3, again.stderr
        answer = json.loads(again.stdout)
        failing = {
            (row["site"], row["stage"])
            for row in answer["report"]["rows"]
            if row["state"] == "would fail"
        }
        assert failing == {("east", "version"), ("the server", "sites")}
        shown = _say(made, "runs", "show", answer["run"])
        assert "would fail: east, version" in shown.stdout
        assert not list((made.site("north") / "rounds").glob("*"))
