"""A town of hospitals with daemons, one of which decides late: for whole-path tests of leaving."""

import csv
import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from tests.pages.blocks import blocks_of
from tests.support.stage import (
    CANARY,
    ENVIRONMENT,
    PATIENCE_SECONDS,
    WARDROUND,
    Deployment,
    deployed,
    wait_until,
)

from wardround.common.study.study import Study
from wardround.server.scheduling.folder import RunFolder, RunStatus


def on_page(page: str, begins: str, names: Mapping[str, object]) -> list[object]:
    """Return the words of a page's command, with what stands there for a name put in."""
    parts = (part for block in blocks_of(page) for part in block.parts())
    words = shlex.split(next(part for part in parts if part.startswith(begins)))
    return [names.get(word, word) for word in words[1:]]


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


@contextmanager
def town_of(folder: Path, study: Study, founders: Sequence[str]) -> Iterator[Deployment]:
    """Give a server and the daemons of its hospitals, of which west has not decided yet."""
    with deployed(folder) as deployment:
        deployment.change_settings(gathering_seconds=1.0)
        deployment.start_server()
        for seed, name in enumerate((*founders, "west")):
            place = deployment.join(name)
            write_site(place, seed, *([study] if name in founders else []))
        (folder / "study.toml").write_text(study.to_toml())
        for name in (*founders, "west"):
            deployment.start_site(name)
        yield deployment


def submit(town: Deployment, *sites: str) -> RunFolder:
    return submit_file(town, town.folder / "study.toml", *sites)


def submit_file(town: Deployment, path: Path, *sites: str) -> RunFolder:
    words = [word for site in sites for word in ("--site", site)]
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
    wait_until(lambda: status(run).round >= number, PATIENCE_SECONDS * 10)
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
