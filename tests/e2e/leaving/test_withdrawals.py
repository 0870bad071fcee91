"""A hospital joins a running study late and leaves it: the model of a run that never had it."""

import csv
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.stage import (
    CANARY,
    ENVIRONMENT,
    PATIENCE_SECONDS,
    WARDROUND,
    Deployment,
    bits_of,
    deployed,
    table_study,
    wait_until,
)

from wardround.common.study.study import Study
from wardround.server.scheduling.folder import RunFolder, RunStatus

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
FOUNDERS = ("north", "south")
STUDY = table_study("leaving", steps=40, rounds=15, minimum_sites=2)


def write_site(folder: Path, seed: int, *approved: Study) -> None:
    generator = np.random.default_rng(seed)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "a", "b"])
        for number in range(40):
            a, b = generator.normal(loc=number % 2, size=2)
            split = ("train", "train", "train", "validation", "test")[number // 2 % 5]
            writer.writerow([f"{CANARY}{number}", number % 2, split, a, b])
    digests = json.dumps([study.digest for study in approved])
    (folder / "policy.toml").write_text(
        "privacy_required = false\nsmallest_cohort = 10\nsmallest_cell = 1\n"
        f'metrics = "sums"\napproved = {digests}\n'
    )


def call(*words: object, code: int = 0) -> str:
    said = subprocess.run(
        [*WARDROUND, *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=PATIENCE_SECONDS * 4,
        check=False,
    )
    assert said.returncode == code, f"{words}: {said.stderr}"
    return said.stdout if code == 0 else said.stderr


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Deployment]:
    """A server and the daemons of three hospitals, of which west has not decided yet."""
    with deployed(tmp_path) as deployment:
        deployment.change_settings(gathering_seconds=1.0)
        deployment.start_server()
        for seed, name in enumerate((*FOUNDERS, "west")):
            folder = deployment.join(name)
            write_site(folder, seed, *([STUDY] if name in FOUNDERS else []))
        (tmp_path / "study.toml").write_text(STUDY.to_toml())
        for name in (*FOUNDERS, "west"):
            deployment.start_site(name)
        yield deployment


def submit(town: Deployment, *sites: str) -> RunFolder:
    words = [word for site in sites for word in ("--site", site)]
    path = town.folder / "study.toml"
    said = json.loads(call("study", "submit", path, "--server", town.server, *words, "--json"))
    return RunFolder(town.server, said["run"])


def status(run: RunFolder) -> RunStatus:
    found = run.status()
    return found or RunStatus(run.name, "", "")


def finished(run: RunFolder) -> RunFolder:
    wait_until(lambda: status(run).state in ("finished", "failed"), PATIENCE_SECONDS * 10)
    assert status(run).state == "finished", status(run).message
    return run


def approve(town: Deployment, digest: str, *sites: str) -> None:
    for site in sites:
        wait_until(lambda s=site: digest in call("site", "pending", town.site(s), "--json"), 120.0)
        call("site", "approve", digest, "--site", town.site(site), "--yes")


@contextmanager
def held_up(town: Deployment, run: RunFolder, number: int) -> Iterator[None]:
    """Wait for a round, and keep the next ones from ending meanwhile: south does not answer."""
    wait_until(lambda: status(run).round >= number, PATIENCE_SECONDS * 4)
    stopped = [
        one
        for process in psutil.process_iter()
        if str(town.site("south")) in " ".join(_words_of(process))
        for one in (process, *process.children(recursive=True))
    ]
    for one in stopped:
        one.suspend()
    try:
        yield
    finally:
        for one in stopped:
            one.resume()


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


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
