"""MLflow: a run is a parent run, each of its sites a run inside it.

Only the client for tracking is used (``mlflow-skinny``). What stands there already is asked once,
so that a run which is resumed goes on in the same place and has no step twice.
"""

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from wardround.common.monitoring.trackers.course import Course, Point, State
from wardround.common.monitoring.trackers.user_file import MlflowTable

if TYPE_CHECKING:
    from mlflow.entities import Run

RUN_TAG, SITE_TAG, PARENT_TAG = "wardround.run", "wardround.site", "mlflow.parentRunId"
_ENDED: dict[State, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_AT_ONCE, _PARAMETERS_AT_ONCE = 500, 100  # what a server takes in one request
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
_Item = TypeVar("_Item")


class MlflowTracker:
    """Writes courses to one MLflow server or folder."""

    def __init__(self, table: MlflowTable) -> None:
        """Open it.

        Raises:
            ImportError: mlflow-skinny is not installed.
            Exception: MLflow's own, where server or folder cannot be used.
        """
        os.environ.update(_SETTINGS)
        if not table.is_server:
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        from mlflow.tracking import MlflowClient

        self._client: MlflowClient = MlflowClient(table.address, table.address)
        self._experiment = self._open_experiment(table.experiment)
        self._keeps_models = table.models
        self._runs: dict[str, str] = {}  # of a key: MLflow's own name
        self._found: set[str] = set()  # runs that were there before
        self._written: dict[tuple[str, str], set[int]] = {}
        self._ended: dict[str, State] = {}

    def write(self, course: Course) -> None:
        """Write what MLflow does not have yet of a run.

        Raises:
            Exception: MLflow's own; what was written stays, and the next try goes on there.
        """
        parent = self._run(course.key, course.name, course, "")
        news = {"": self._new_points(parent, course, "")}
        for site in course.sites:
            run = self._run(f"{course.key}/{site}", site, course, site)
            news[site] = self._new_points(run, course, site)
        for site, points in news.items():
            self._log(self._runs[f"{course.key}/{site}" if site else course.key], points)
        self._end(course, parent, has_news=any(news.values()))

    def close(self) -> None:
        """Nothing is held open."""

    def _open_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name))

    def _run(self, key: str, name: str, course: Course, site: str) -> str:
        """Return MLflow's name of a run, which is made where there is none."""
        if key in self._runs:
            return self._runs[key]
        found = self._find(key)
        if found is None:
            tags = {RUN_TAG: key, **course.tags}
            if site:
                parent = self._runs[course.key]
                tags = {RUN_TAG: key, SITE_TAG: site, PARENT_TAG: parent}
            found = self._client.create_run(self._experiment, run_name=name, tags=tags)
        else:
            self._found.add(found.info.run_id)
            if found.info.status == _ENDED["finished"]:
                self._ended[found.info.run_id] = "finished"
        number = str(found.info.run_id)
        if not site:
            self._log_parameters(number, course, set(found.data.params))
        self._runs[key] = number
        return number

    def _find(self, key: str) -> "Run | None":
        found = self._client.search_runs([self._experiment], f"tags.`{RUN_TAG}` = '{key}'")
        return found[0] if found else None

    def _log_parameters(self, run: str, course: Course, known: set[str]) -> None:
        from mlflow.entities import Param

        missing = [Param(key, text) for key, text in course.parameters.items() if key not in known]
        for some in _slices(missing, _PARAMETERS_AT_ONCE):
            self._client.log_batch(run, params=some)

    def _new_points(self, run: str, course: Course, site: str) -> list[Point]:
        return [
            point
            for point in course.points
            if point.site == site and point.step not in self._steps(run, point.name)
        ]

    def _steps(self, run: str, name: str) -> set[int]:
        """Return the steps that stand there of a number."""
        if (run, name) not in self._written:
            there = self._client.get_metric_history(run, name) if run in self._found else ()
            self._written[run, name] = {int(metric.step) for metric in there}
        return self._written[run, name]

    def _log(self, run: str, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for some in _slices(points, _AT_ONCE):
            rows = [Metric(one.name, one.value, now, one.step) for one in some]
            self._client.log_batch(run, metrics=rows)
            for one in some:
                self._written[run, one.name].add(one.step)

    def _end(self, course: Course, parent: str, has_news: bool) -> None:
        """Say how the run stands; what is kept of a finished one is handed over once."""
        before = self._ended.get(parent)
        if course.state == "running":
            if before is not None or parent in self._found:
                self._found.discard(parent)
                self._ended.pop(parent, None)
                self._set_state(course, "RUNNING")
            return
        if before == course.state and not has_news:
            return
        if course.state == "finished":
            for path in course.kept_files(self._keeps_models):
                self._client.log_artifact(parent, str(path))
        self._set_state(course, _ENDED[course.state])
        self._ended[parent] = course.state

    def _set_state(self, course: Course, status: str) -> None:
        for run in (self._runs[course.key], *self._site_runs(course)):
            if status == "RUNNING":
                self._client.update_run(run, status=status)
            else:
                self._client.set_terminated(run, status)

    def _site_runs(self, course: Course) -> Iterator[str]:
        for site in course.sites:
            yield self._runs[f"{course.key}/{site}"]


def _slices(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
