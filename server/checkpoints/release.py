"""A finished run's model as its sites may have it: who took part, and which model was kept."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wardround.common.files.atomic import replace_file

_FILE, _RUNS, _REVOKED = "release.json", "runs", "revoked.json"


@dataclass(frozen=True, slots=True)
class Release:
    """One finished run.

    Attributes:
        study: The study's digest.
        model: The model's digest.
        round: After which the model was made.
        took_part: Whose updates are in a committed round.
        ended: Seconds since 1970.
    """

    run: str
    study: str
    model: str
    round: int
    took_part: tuple[str, ...]
    ended: float


_CONTENT = TypeAdapter(Release)


def write_release(run_folder: Path, release: Release) -> None:
    """Note in a run's folder that its model may be fetched by the sites that took part."""
    replace_file(run_folder / _FILE, _CONTENT.dump_json(release))


def read_release(run_folder: Path) -> Release | None:
    """Return what a run released; None where it has not finished."""
    try:
        return _CONTENT.validate_json((run_folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def revoke(run_folder: Path, reason: str) -> None:
    """Say that a run's model is to be used no more; it is given to nobody from then on."""
    replace_file(run_folder / _REVOKED, json.dumps({"reason": reason}).encode())


def revoked_because(run_folder: Path) -> str:
    """Return why a run's model is to be used no more; "" where it may be."""
    try:
        return str(json.loads((run_folder / _REVOKED).read_bytes())["reason"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "it was revoked, and the reason cannot be read"


def find_release(server_folder: Path, study: str, site: str) -> tuple[Release, Path] | None:
    """Return the last finished run of a study that a site took part in, and the run's folder."""
    found: list[tuple[float, Release, Path]] = []
    for path in (server_folder / _RUNS).glob(f"*/{_FILE}"):
        try:
            release = _CONTENT.validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # it is being removed, or was never whole: no model to give
        if revoked_because(path.parent):
            continue
        if release.study == study and site in release.took_part:
            found.append((release.ended, release, path.parent))
    if not found:
        return None
    _, newest, folder = max(found, key=lambda one: one[0])
    return newest, folder
