"""A gateway as a process of its own, which can be killed; and what an archive holds afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.pacs.orthanc import Orthanc

from wardround.client.clinic.pacs.archive import Archive, StudyQuery

PLANTED = Path(__file__).parents[1] / "faults" / "planted"
_SECONDS = 180.0
SERVE = """
[serve]
modality = "MR"
days = 36500
poll_seconds = 0.3
settle_seconds = {settle}
retry_seconds = 0.5
most_errors = 3
"""


def add_rules(site: Path, more: str = "", settle: float = 0) -> None:
    """Have a site's gateway answer every MR series, at a pace for tests."""
    with (site / "pacs.toml").open("a", encoding="utf-8") as stream:
        stream.write(SERVE.format(settle=settle) + more)


def command(site: Path, *words: object) -> list[str]:
    """Return the command line of a gateway."""
    return [sys.executable, "-m", "wardround.cli", "site", "serve", *map(str, (site, *words))]


@contextmanager
def serving(
    site: Path, model: Path, faults: Path | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a gateway while the context lasts.

    Args:
        faults: The folder of planned faults, which the process looks into.
    """
    environment: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1"}
    if faults is not None:
        environment = {
            **environment,
            "PYTHONPATH": os.pathsep.join([str(PLANTED), os.environ.get("PYTHONPATH", "")]),
            "WARDROUND_FAULTS": str(faults),
        }
    with (site.parent / "serve.log").open("ab") as log:
        child = subprocess.Popen(
            command(site, "--model", model), env=environment, stdout=log, stderr=log
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def status(site: Path) -> dict[str, object]:
    """Return what the gateway of a site says of itself."""
    done = subprocess.run(
        command(site, "--status", "--json"), capture_output=True, text=True, check=True, timeout=60
    )
    said: dict[str, object] = json.loads(done.stdout)
    return said


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = _SECONDS) -> None:
    """Wait for something.

    Raises:
        AssertionError: It did not come.
    """
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"{what}: not after {seconds:g} s"
        time.sleep(0.1)


def results(archive: Archive) -> dict[str, list[str]]:
    """Return the modality of each object that is no image, by study, as a query finds them."""
    found: dict[str, list[str]] = {}
    for study in archive.find_studies(StudyQuery()):
        held = found.setdefault(study.uid, [])
        for series in archive.find_series(study.uid):
            if series.modality != "MR":
                objects = archive.find_objects(study.uid, series.uid)
                held += [series.modality] * len(objects)
        held.sort()
    return found


def stored_objects(orthanc: Orthanc, kind: str) -> int:
    """Return how often an object of a kind was stored, removed ones and repeats included."""
    changes = orthanc.get("changes?limit=10000")
    assert isinstance(changes, dict)
    return sum(1 for one in changes["Changes"] if one["ChangeType"] == kind)


def end(child: "subprocess.Popen[bytes]", number: signal.Signals = signal.SIGTERM) -> int:
    """Signal a gateway, and return its exit status."""
    child.send_signal(number)
    return child.wait(60)
