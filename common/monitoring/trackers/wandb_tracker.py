"""Weights & Biases: a run a study; each site's numbers stand under its name. Offline by default.

What was written is noted in a file beside, for files of an offline run cannot be asked.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wardround.common.files.atomic import replace_file
from wardround.common.monitoring.trackers.course import KEPT_STEP, Course, Point, plain_part
from wardround.common.monitoring.trackers.user_file import WandbTable

_SETTINGS = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "DO_NOT_TRACK": "true"}
_KEY_DIGITS = 32
# Of the machine nothing is told: not its name, its user, its processes, its working folder.
_QUIET: Mapping[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "host": "wardround",
    "program": "wardround",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_PATIENCE_SECONDS = 10


class WandbTracker:
    """Writes courses to one project."""

    def __init__(self, table: WandbTable) -> None:
        """Open it.

        Raises:
            ImportError: wandb is not installed.
            OSError: The folder cannot be made.
        """
        os.environ.update(_SETTINGS)
        mode = "online" if table.online else "offline"
        os.environ["WANDB_MODE"] = mode  # whatever the shell says: the user's file decides
        import wandb

        self._wandb, self._table, self._mode = wandb, table, mode
        self._folder = Path(table.folder)
        (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, Any] = {}

    def write(self, course: Course) -> None:
        """Write what was not written yet of a run.

        Raises:
            Exception: wandb's own.
        """
        note = self._note(course)
        written = {str(name): set(steps) for name, steps in note["written"].items()}
        news = [one for one in course.points if one.step not in written.get(_key(one), ())]
        is_ended = course.state != "running"
        if not news and note["state"] == course.state:
            if is_ended:
                self._finish(course)
            return
        run = self._run(course)
        for step in sorted({one.step for one in news}):
            values = {_key(one): one.value for one in news if one.step == step}
            if step == KEPT_STEP:
                run.summary.update(values)
            else:
                # wandb's own steps go on where an earlier process ended: it drops what is before.
                run.log({**values, "round": step}, step=note["calls"])
                note["calls"] += 1
        for one in news:
            written.setdefault(_key(one), set()).add(one.step)
        if course.state == "finished":
            self._keep(run, course)
        if is_ended:
            self._finish(course)
        steps = {name: sorted(one) for name, one in written.items()}
        text = json.dumps({"state": course.state, "calls": note["calls"], "written": steps})
        replace_file(self._note_path(course), text.encode())

    def close(self) -> None:
        """End what is open; a run that goes on can be gone on with."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def _note_path(self, course: Course) -> Path:
        return self._folder / "wandb" / f"wardround-{course.key[:_KEY_DIGITS]}.json"

    def _note(self, course: Course) -> dict[str, Any]:
        try:
            note = json.loads(self._note_path(course).read_text(encoding="utf-8"))
            calls, written = int(note["calls"]), dict(note["written"])
            return {"state": str(note["state"]), "calls": calls, "written": written}
        except (OSError, ValueError, KeyError, TypeError):
            return {"state": "", "calls": 0, "written": {}}

    def _run(self, course: Course) -> Any:
        if course.key not in self._runs:
            wandb = self._wandb
            settings = wandb.Settings(init_timeout=_PATIENCE_SECONDS, **_QUIET)
            run = wandb.init(
                project=self._table.project,
                name=course.name,
                id=course.key[:_KEY_DIGITS],
                resume="allow",
                mode=self._mode,
                dir=str(self._folder),
                config={**course.parameters, **course.tags},
                reinit="create_new",
                settings=settings,
            )
            run.define_metric("round", hidden=True)
            run.define_metric("*", step_metric="round")
            self._runs[course.key] = run
        return self._runs[course.key]

    def _keep(self, run: Any, course: Course) -> None:
        artifact = self._wandb.Artifact(f"run-{course.key[:_KEY_DIGITS]}", type="run")
        files = course.kept_files(self._table.models)
        for path in files:
            artifact.add_file(str(path), policy="immutable")  # no copy
        if files:
            run.log_artifact(artifact)

    def _finish(self, course: Course) -> None:
        run = self._runs.pop(course.key, None)
        if run is not None:
            run.finish(exit_code=0 if course.state == "finished" else 1)


def _key(point: Point) -> str:
    return f"{plain_part(point.site)}/{point.name}" if point.site else point.name
