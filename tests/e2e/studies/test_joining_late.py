"""Three hospitals train; a fourth is told what joining is worth, and joins. Nothing restarts."""

import json
import os
from pathlib import Path

import psutil
import pytest
from tests.support.leaving.late_town import (
    call,
    finished,
    held_up,
    on_page,
    status,
    submit,
    town_of,
)
from tests.support.stage import table_study, wait_until

from wardround.server.checkpoints.history import read_records

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
FOUNDERS = ("east", "north", "south")
PAGE = "docs/how-to/joining.md"
STUDY = table_study("joining", steps=40, rounds=12, minimum_sites=3)


def test_a_fourth_hospital_is_told_its_worth_and_joins_a_running_study(tmp_path: Path) -> None:
    with town_of(tmp_path, STUDY, FOUNDERS) as town:
        run, west = submit(town), town.site("west")
        names = {"STUDY": STUDY.digest[:16], "west": west}
        worth = on_page(PAGE, "wardround site worth", names)
        with held_up(town, run, 5):
            before = {process.pid for process in psutil.process_iter()}
            wait_until(
                lambda: (
                    STUDY.digest in call(*on_page(PAGE, "wardround site pending", names), "--json")
                ),
                120.0,
            )
            said = json.loads(call(*worth, "--rounds", 1, "--json"))
            audit = json.loads(call("site", "audit", "show", west, "--last", 0, "--json"))
            assert not [one for one in audit if one["event"]["kind"] == "update"]
            call(*on_page(PAGE, "wardround site approve", names), "--yes")
        assert said["sites"] == 3
        assert said["round"] >= 5
        assert said["patients"] == 8
        assert said["joining"]["word"] in ("yes", "no", "cannot be told")
        assert all(0 <= value <= 1 for value in said["values"].values())
        assert len(said["values"]) == 3
        finished(run)
        records = read_records(run.checkpoints / "history.jsonl")
        trained = [one.round for one in records if "west" in {site.site for site in one.sites}]
        assert trained == [*range(trained[0], 13)]
        assert 6 <= trained[0] <= 8
        assert all({site.site for site in record.sites} >= set(FOUNDERS) for record in records[:12])
        assert status(run).starts == 1, "the study's process was started once"
        daemons = {process.pid for process in town.processes}
        assert daemons <= before, "no daemon and no server was started again"
        assert all(process.poll() is None for process in town.processes)
