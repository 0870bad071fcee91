"""The last model of a run that is not over, for a site that the run is for.

A hospital that thinks of joining looks at it before it decides. It would be sent the same model in
the next round.
"""

import json
from pathlib import Path
from typing import Any

from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.parameters.model_file import load_model
from wardround.server.checkpoints.release import Release, revoked_because
from wardround.server.checkpoints.store import CheckpointStore

_OVER = ("finished", "failed", "stopped")


def find_present(server_folder: Path, study: str, site: str) -> tuple[Release, Path] | None:
    """Return the last model of the newest run of a study that is not over, and its folder.

    Raises:
        RunError: Its commit is damaged.
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
        commit = CheckpointStore(folder / "checkpoints").latest()
        if commit is None:
            continue
        number = commit.progress.round
        place = folder / "checkpoints" / f"round-{number:05d}"
        model = parameters_digest(load_model(place / "model.safetensors").parameters)
        sites = tuple(str(one) for one in status.get("sites", ()))
        return Release(str(status["run"]), study, model, number, sites, 0.0), place
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
