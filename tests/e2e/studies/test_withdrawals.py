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
    on_page,
    status,
    submit,
    town_of,
)
from tests.support.stage import (
    CANARY,
    PATIENCE_SECONDS,
    Deployment,
    bits_of,
    table_study,
    wait_until,
)

from wardround.server.scheduling.folder import RunFolder
from wardround.server.sites.withdrawal_requests import requests_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
FOUNDERS = ("north", "south")
PAGE = "docs/how-to/leave-a-study.md"
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


def leaving(west: Path) -> list[object]:
    names = {"STUDY": STUDY.digest[:16], "west": west}
    return [*on_page(PAGE, "wardround site withdraw", names), "--yes", "--json"]


def leave_run(town: Deployment, run: RunFolder) -> dict[str, str]:
    """Have west leave in the middle of a round, and the operator begin the repeat."""
    west = town.site("west")
    leave = leaving(west)
    (asked,) = json.loads(call(*leave))
    assert asked["state"] == "noted"
    names = {"/srv/wardround": town.server, "RUN": run.name}
    listed = on_page(PAGE, "wardround runs withdrawals", names)
    (waiting,) = json.loads(call(*listed, "--json"))
    assert (waiting["site"], waiting["run"], waiting["without"]) == ("west", run.name, "site")
    plan = json.loads(call(*on_page(PAGE, "wardround runs withdraw RUN", names), "--json"))
    assert plan["after_round"] == plan["first_round"] - 1 >= 4
    assert not (run.path / "revoked.json").exists(), "a plan changes nothing"
    words = on_page(PAGE, "wardround runs withdraw RUN", names)
    words[-1] = "--yes"
    begun = json.loads(call(*words, "--json"))
    again = json.loads(call(*words, "--json"))
    assert again["run"] == begun["run"], "it is begun once"
    return {"run": begun["run"], "digest": begun["digest"]}


def first_commit(repeat: RunFolder) -> int:
    """Return the round that a repeat began after."""
    repeats = repeat.study().study.repeats
    assert repeats is not None
    return repeats.after_round


def repeated(town: Deployment, run: RunFolder, begun: dict[str, str]) -> None:
    west = town.site("west")
    leave = leaving(west)
    wait_until(lambda: status(run).state == "stopped", PATIENCE_SECONDS)
    assert 10 <= status(run).round < STUDY.federation.rounds
    assert "left the study" in call("runs", "resume", run.name, "--server", town.server, code=2)
    record = (run.checkpoints / "lineage.jsonl").read_bytes()
    repeat = RunFolder(town.server, begun["run"])
    approve(town, begun["digest"], *FOUNDERS)
    wait_until(lambda: status(repeat).round > first_commit(repeat), PATIENCE_SECONDS * 4)
    town.kill_child("scheduling.process")  # kill -9, in the middle of the repeat
    finished(repeat)
    assert status(repeat).starts == 2
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


def test_patients_who_left_are_in_no_bit_of_the_new_model(tmp_path: Path) -> None:
    study = table_study("forgetting", steps=10, rounds=4, minimum_sites=2)
    with town_of(tmp_path, study, FOUNDERS) as town:
        run, north = finished(submit(town, *FOUNDERS)), town.site("north")
        (north / "left.txt").write_text(f"{CANARY}3\n{CANARY}12\n")
        names = {"left.txt": north / "left.txt", "west": north}
        words = on_page(PAGE, "wardround site forget-patients", names)
        (asked,) = json.loads(call(*words, "--yes", "--json"))
        assert (asked["state"], asked["without"]) == ("noted", "patients")
        assert CANARY not in str(requests_of(town.server))
        server = ("--site", "north", "--patients", "--server", town.server, "--yes", "--json")
        begun = json.loads(call("runs", "withdraw", run.name, *server))
        assert begun["after_round"] == 0
        approve(town, begun["digest"], *FOUNDERS)
        repeat = finished(RunFolder(town.server, begun["run"]))
        found = json.loads(call(*words, "--yes", "--json"))
        done = next(one for one in found if one["study"] == study.digest)
        assert CANARY not in Path(done["certificate"]).read_text()
        other = finished(submit(town, *FOUNDERS))
        assert bits_of(repeat.model_path) == bits_of(other.model_path) != bits_of(run.model_path)
