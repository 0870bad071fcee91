"""What left the followed hospital, from its own audit logs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.year.chapters import Trained
from benchmarks.year.command import answer, command


def what_left(runs: Sequence[Trained]) -> list[tuple[str, str, int, int]]:
    """Return run, kind of message, how many of it and their bytes; each log is verified.

    Of a repeat, whose log goes on from another run's, only what is new is counted.

    Raises:
        YearFailedError: A log is not as it was written.
    """
    found, known = list[tuple[str, str, int, int]](), set[str]()
    for run in runs:
        command("site", "audit", "verify", run.site)
        counts, sizes = Counter[str](), Counter[str]()
        for entry in _entries(run.site):
            event = entry["event"]
            if event["bytes"] and entry["hash"] not in known:
                counts[event["kind"]] += 1
                sizes[event["kind"]] += event["bytes"]
            known.add(entry["hash"])
        found += [(run.name, kind, counts[kind], sizes[kind]) for kind in sorted(counts)]
    return found


def corrections_trained_on(site: Path) -> int:
    """Return in how many rounds a site trained on what its readers said."""
    return sum(entry["event"]["kind"] == "corrections" for entry in _entries(site))


def _entries(site: Path) -> list[dict[str, Any]]:
    return [*answer("site", "audit", "show", site, "--last", 0)]
