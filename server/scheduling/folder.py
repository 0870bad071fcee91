"""A run's folder on the server: its study, its commits, how it stands, and what happened."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from wardround.common.errors import RunError
from wardround.common.files.atomic import replace_file
from wardround.common.files.lock import held_alone
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study

RUNS_FOLDER = "runs"
STUDY_FILE, MODEL_FILE = "study.toml", "model.safetensors"
STATUS_FILE, LOG_FILE = "status.json", "log.jsonl"
SITES_FILE, PRESENT_FILE = "sites.json", "present.json"
CHECKPOINTS_FOLDER = "checkpoints"
_LOCK_FILE = "lock"

STARTING, WAITING, RUNNING = "starting", "waiting", "running"
FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Attributes:
        state: ``starting``, ``waiting`` (for sites), ``running``, ``finished``, ``failed`` or
            ``stopped``.
        round: Rounds committed.
        value: The study's metric, of the model that the last round started from; None before.
        sites: Who takes part.
        message: What it waits for, or why it ended.
        deadlines: How long its rounds wait for a site, in words.
        starts: How often its process has been started.
        updated: Seconds since 1970.
        took_part: Whose updates are in a committed round.
        without: The sites that the run is for whose updates are in none.
        missed: In how many committed rounds each site did not train, though the run is for it.
    """

    run: str
    study: str
    digest: str
    state: str = STARTING
    round: int = 0
    rounds: int = 0
    metric: str = ""
    value: float | None = None
    sites: tuple[str, ...] = ()
    message: str = ""
    deadlines: str = ""
    starts: int = 0
    updated: float = 0.0
    took_part: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    missed: dict[str, int] = field(default_factory=dict)


class RunFolder:
    """The folder of one run."""

    def __init__(self, server_folder: Path, run: str) -> None:
        self.name = run
        self.path = server_folder / RUNS_FOLDER / run
        self.checkpoints = self.path / CHECKPOINTS_FOLDER
        self.model_path = self.path / MODEL_FILE

    def study(self) -> Study:
        """Return the run's study.

        Raises:
            StudyError: It is not there, or is no study.
        """
        return load_study(self.path / STUDY_FILE)

    def status(self) -> RunStatus | None:
        """Return how the run stands, None before its process was started once."""
        try:
            content = json.loads((self.path / STATUS_FILE).read_text(encoding="utf-8"))
            lists = {name: tuple(content[name]) for name in ("sites", "took_part", "without")}
            return RunStatus(**{**content, **lists})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put_status(self, status: RunStatus) -> None:
        """Write how the run stands; a reader sees the old text or the new one, whole."""
        content = asdict(replace(status, updated=time.time()))
        text = json.dumps(content, allow_nan=False) + "\n"
        replace_file(self.path / STATUS_FILE, text.encode())

    def log(self, event: str, **facts: object) -> None:
        """Append what happened to the run's log; facts hold nothing about a patient."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **facts}) + "\n"
        with (self.path / LOG_FILE).open("a", encoding="utf-8") as stream:
            stream.write(line)

    def wanted_sites(self) -> tuple[str, ...]:
        """Return the sites that the run is for, as its operator named them; empty takes all."""
        return self._sites(SITES_FILE)

    def put_wanted_sites(self, sites: tuple[str, ...]) -> None:
        """Say which sites the run is for."""
        self._put_sites(SITES_FILE, sites)

    def present_sites(self) -> tuple[str, ...]:
        """Return the sites that took part when the run's process was last there; empty if none."""
        return self._sites(PRESENT_FILE)

    def put_present_sites(self, sites: tuple[str, ...]) -> None:
        """Note which sites take part from now on."""
        self._put_sites(PRESENT_FILE, sites)

    def _sites(self, name: str) -> tuple[str, ...]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
            return tuple(str(site) for site in content["sites"])
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def _put_sites(self, name: str, sites: tuple[str, ...]) -> None:
        replace_file(self.path / name, json.dumps({"sites": list(sites)}).encode())

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the run: one process at a time works on it.

        Raises:
            RunError: Another one does.
        """
        msg = f"run {self.name} is being worked on by another process: wait until that ends."
        with held_alone(self.path / _LOCK_FILE, RunError(msg)):
            yield
