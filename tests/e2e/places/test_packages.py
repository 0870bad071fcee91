"""The example package simulated, between real daemons, and at a site that does not list it."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.places.example_study import EXAMPLE_STUDY
from tests.support.places.packages import install_example, with_package
from tests.support.stage import WARDROUND

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
_PATIENCE_SECONDS = 300.0


class Machine:
    """A machine that has the example package, and the study that names it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed = install_example(folder)
        self.environment = with_package(self.installed)
        self.environment["XDG_CACHE_HOME"] = str(folder / "cache")
        (folder / "study.toml").write_text(EXAMPLE_STUDY)

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*WARDROUND, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_all_that_the_example_registers_is_simulated_and_predicts(tmp_path: Path) -> None:
    """One simulation of two rounds; about ten seconds of a core."""
    machine = Machine(tmp_path)
    assert "wardround study lock" in machine.run("study", "check", "study.toml", code=2)
    locked = machine.run("study", "lock", "study.toml")
    text = (tmp_path / "study.toml").read_text()
    digest = locked.splitlines()[-1].split()[-1]
    assert locked.splitlines()[0].replace(" ", ' = "') + '"' in text
    assert text.startswith(EXAMPLE_STUDY)  # nothing else was touched
    said = machine.run("simulate", "study.toml", "--out", "run")
    assert "example-ward:kappa" in said
    card = (tmp_path / "run/models/federated/card.md").read_text()
    assert "package example-ward, SHA-256" in card
    # One byte more, and it is another study, which this run's model is not of.
    network = machine.installed / "example_ward/network.py"
    network.write_bytes(network.read_bytes() + b"#")
    refused = machine.run("study", "check", "study.toml", code=2)
    assert "has the hash" in refused
    assert machine.run("study", "lock", "study.toml").splitlines()[-1].split()[-1] != digest


def test_real_daemons_train_it_and_one_whose_policy_does_not_list_it_refuses(
    tmp_path: Path,
) -> None:
    """Server and two sites as processes; by hand, 'wardround federation try' with more sites."""
    machine = Machine(tmp_path)
    machine.run("study", "lock", "study.toml")
    machine.run("federation", "try", "study.toml", "--rounds", "2", "--out", "try")
    site = tmp_path / "try/sites/hospital-1"
    policy = (site / "policy.toml").read_text()
    assert "[packages]" in policy
    (site / "policy.toml").write_text(policy.partition("[packages]")[0])
    said = machine.run("site", "explain", "study.toml", "--site", str(site), code=1)
    assert "does not list it" in " ".join(said.replace("│", " ").split())
    children = [
        subprocess.Popen(
            [*WARDROUND, *words],
            env=machine.environment,
            stdout=(tmp_path / f"{name}.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        for name, words in (
            ("server", ("server", "start", str(tmp_path / "try/server"))),
            *((one, ("site", "start", str(site.with_name(one)))) for one in SITES),
        )
    ]
    try:
        run = _submitted(machine)
        assert _told(machine, run, "does not allow, or does not have,")
        assert "does not list it" in (tmp_path / "hospital-1.log").read_text()
    finally:
        for child in reversed(children):
            child.terminate()
        for child in reversed(children):
            child.wait(60)


SITES = ("hospital-1", "hospital-2")


def _submitted(machine: Machine) -> str:
    until = time.monotonic() + _PATIENCE_SECONDS
    words = ("study", "submit", "study.toml", "--server", "try/server")
    while True:
        done = subprocess.run(
            [*WARDROUND, *words, *(w for one in SITES for w in ("--site", one)), "--json"],
            cwd=machine.folder,
            env=machine.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < until, done.stderr
        time.sleep(1)


def _told(machine: Machine, run: str, words: str) -> bool:
    import json

    name, until = json.loads(run)["run"], time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        said = machine.run("runs", "show", name, "--server", "try/server")
        if words in " ".join(said.replace("│", " ").split()):
            return True
        time.sleep(1)
    raise AssertionError(said)
