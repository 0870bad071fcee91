"""The last model of a run that is not over, for a site that the run is for.

A hospital that thinks of joining looks at it before it decides. It would be sent the same model in
the next round. Its digest stands in the signed record of the rounds: nothing is loaded here, for
this is asked of the process that holds the connections of the sites.
"""

import json
from pathlib import Path
from typing import Any

from wardround.common.errors import ModelError
from wardround.common.security.lineage import LINEAGE_FILE, open_line
from wardround.server.checkpoints.release import Release, revoked_because

_OVER = ("finished", "failed", "stopped")
_COMMITS, _SEAL = "checkpoints", "commit.json"


def find_present(server_folder: Path, study: str, site: str) -> tuple[Release, Path] | None:
    """Return the last model of the newest run of a study that is not over, and its folder.

    None where there is no such run for the site, or its rounds are not signed.
    """
    found = []
    for path in (server_folder / "runs").glob("*/status.json"):
        status, folder = _read(path), path.parent
        wanted = _read(folder / "sites.json").get("sites") or [site]
        if status.get("digest") != study or status.get("state") in _OVER or site not in wanted:
            continue
        if not revoked_because(folder):
            found.append((float(status.get("updated", 0.0)), status, folder))
    for _, status, folder in sorted(found, key=lambda one: -one[0]):
        commits = folder / _COMMITS
        for number in sorted(_rounds(commits), reverse=True):
            model = _digest(commits, number)
            if model:
                sites = tuple(str(one) for one in status.get("sites", ()))
                release = Release(str(status["run"]), study, model, number, sites, 0.0)
                return release, commits / f"round-{number:05d}"
    return None


def _rounds(commits: Path) -> list[int]:
    """Return the rounds whose commits are whole."""
    names = (path.parent.name.removeprefix("round-") for path in commits.glob(f"round-*/{_SEAL}"))
    return [int(name) for name in names if name.isdigit()]


def _digest(commits: Path, number: int) -> str:
    """Return the digest of a round's model, as its line of the signed record says."""
    try:
        line = (commits / LINEAGE_FILE).read_bytes().split(b"\n")[number]
        return str(open_line(line)[0]["subject"][0]["digest"]["sha256"])
    except (OSError, IndexError, KeyError, TypeError, ModelError):
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
