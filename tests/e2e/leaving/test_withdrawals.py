"""A hospital joins a running study late and leaves it: the model of a run that never had it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.leaving.late_town import (
    approve,
    call,
    finished,
    held_up,
    status,
    submit,
    town_of,
)
from tests.support.stage import PATIENCE_SECONDS, Deployment, bits_of, table_study, wait_until

from wardround.server.scheduling.folder import RunFolder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
FOUNDERS = ("north", "south")
STUDY = table_study("leaving", steps=40, rounds=15, minimum_sites=2)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Deployment]:
    with town_of(tmp_path, STUDY, FOUNDERS) as made:
        yield made


def test_a_hospital_that_came_late_and_left_is_in_no_bit_of_the_new_model(town: Deployment) -> None:
    run = submit(town)
    with held_up(town, run, 4):
        approve(town, STUDY.digest, "west")
    wait_until(lambda: "west" in status(run).took_part, PATIENCE_SECONDS * 4)
    with held_up(town, run, 10):
        begun = leave_run(town, run)
    repeated(town, run, begun)


def leave_run(town: Deployment, run: RunFolder) -> dict[str, str]:
    """Have west leave in the middle of a round, and the operator begin the repeat."""
    west = town.site("west")
    leave = ("site", "withdraw", STUDY.digest[:16], "--site", west, "--yes", "--json")
    (asked,) = json.loads(call(*leave))
    assert asked["state"] == "noted"
    (waiting,) = json.loads(call("runs", "withdrawals", "--server", town.server, "--json"))
    assert (waiting["site"], waiting["run"], waiting["without"]) == ("west", run.name, "site")
    words = ("runs", "withdraw", run.name, "--site", "west", "--server", town.server)
    plan = json.loads(call(*words, "--plan", "--json"))
    assert plan["after_round"] == plan["first_round"] - 1 >= 4
    assert not (run.path / "revoked.json").exists(), "a plan changes nothing"
    begun = json.loads(call(*words, "--yes", "--json"))
    again = json.loads(call(*words, "--yes", "--json"))
    assert again["run"] == begun["run"], "it is begun once"
    return {"run": begun["run"], "digest": begun["digest"]}


def repeated(town: Deployment, run: RunFolder, begun: dict[str, str]) -> None:
    west = town.site("west")
    leave = ("site", "withdraw", STUDY.digest[:16], "--site", west, "--yes", "--json")
    wait_until(lambda: status(run).state == "stopped", PATIENCE_SECONDS)
    assert 10 <= status(run).round < STUDY.federation.rounds
    assert "left the study" in call("runs", "resume", run.name, "--server", town.server, code=2)
    record = (run.checkpoints / "lineage.jsonl").read_bytes()
    repeat = RunFolder(town.server, begun["run"])
    approve(town, begun["digest"], *FOUNDERS)
    finished(repeat)
    assert (run.checkpoints / "lineage.jsonl").read_bytes() == record
    (done,) = json.loads(call(*leave))
    assert done["state"] == "finished"
    certificate = Path(done["certificate"])
    assert certificate.read_bytes() == (repeat.path / "withdrawal.json").read_bytes()
    model = town.folder / "model"
    call("runs", "model", repeat.name, "--server", town.server, "--out", model)
    verify = ("model", "verify-withdrawal", certificate, "--model", model)
    keys = ("--server-key", town.server / "signing" / "server.pub")
    keys += ("--site-key", west / "keys" / "site.pub")
    said = call(*verify, *keys)
    assert "Bit-identical to a run that never had it" in said
    assert "2 site keys signed a part of the repeated rounds" in said
    call("model", "verify", model, *keys[:2])
    assert "no round was signed" in call("model", "verify", model, *keys[2:], code=2)
    changed = bytearray(certificate.read_bytes())
    changed[len(changed) // 3] ^= 1
    (town.folder / "changed.json").write_bytes(changed)
    assert "was changed" in call("model", "verify-withdrawal", town.folder / "changed.json", code=2)
    other = finished(submit(town, *FOUNDERS))
    assert bits_of(repeat.model_path) == bits_of(other.model_path)
