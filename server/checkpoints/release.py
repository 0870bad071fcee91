"""A finished run's model as its sites may have it: who took part, and which model was kept."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wardround.common.files.atomic import replace_file

_FILE, _RUNS = "release.json", "runs"


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


def find_release(server_folder: Path, study: str, site: str) -> tuple[Release, Path] | None:
    """Return the last finished run of a study that a site took part in, and the run's folder."""
    found: list[tuple[float, Release, Path]] = []
    for path in (server_folder / _RUNS).glob(f"*/{_FILE}"):
        try:
            release = _CONTENT.validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # it is being removed, or was never whole: no model to give
        if release.study == study and site in release.took_part:
            found.append((release.ended, release, path.parent))
    if not found:
        return None
    _, newest, folder = max(found, key=lambda one: one[0])
    return newest, folder
