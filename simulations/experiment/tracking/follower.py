"""Tells a user's trackers how a run comes on; as a process beside the run, until its end.

The process reads files and writes none of the run's. A line on its standard input, or the end of
that, says that the run has ended; then it tells the rest, and prints in JSON what it could not.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from wardround.common.errors import InputError
from wardround.common.monitoring.traces import open_traces
from wardround.common.monitoring.trackers.tracking import Tracking, quieten_packages
from wardround.common.monitoring.trackers.user_file import read_user_file
from wardround.common.runtime.system.processes import leave_cores_to_others
from wardround.simulations.experiment.tracking.course import course_of, fingerprint, runs_in
from wardround.simulations.experiment.tracking.spans import spans_of

_LOOK_SECONDS = 1.0
_LAST_SECONDS = 300.0  # for the rest; whoever waits for it has gone long before
_NICE = 10  # the run's own processes come first


class Follower:
    """Tells trackers of the runs in a folder, each as far as it has come."""

    def __init__(self, folder: Path, tracking: Tracking) -> None:
        self._folder, self._tracking = folder, tracking
        self._seen: dict[Path, object] = {}

    def look(self, is_last: bool = False) -> bool:
        """Tell what is new; return whether a run goes on.

        Args:
            is_last: Whether to tell all, so that what failed before is tried again.
        """
        series = "" if (self._folder / "run.json").exists() else self._folder.name
        goes_on = False
        for run in runs_in(self._folder):
            seen = fingerprint(run)
            if self._seen.get(run) == seen and not is_last and not self._tracking.problems:
                continue
            try:
                course = course_of(run, series)
            except InputError:  # it is being written, or was damaged: it has nothing to be told
                continue
            if course is not None:
                self._tracking.write(course, is_last)
                self._seen[run] = seen
                goes_on = goes_on or course.state == "running"
        return goes_on


def follow(folder: Path, tracking: Tracking) -> tuple[str, ...]:
    """Tell trackers of a run or series until it is over; return what could not be told."""
    follower = Follower(folder, tracking)
    try:
        while follower.look(is_last=True):
            time.sleep(_LOOK_SECONDS)
    finally:
        tracking.close()
    return tracking.problems


def main(arguments: list[str]) -> NoReturn:
    """Follow the run in a folder, with a user's file."""
    leave_cores_to_others(_NICE)
    folder, user_file = Path(arguments[0]), Path(arguments[1])
    content = read_user_file(user_file)
    over, began = _when_input_ends(), time.time()
    with quieten_packages() as answer:
        tracking = Tracking(content.track)
        follower = Follower(folder, tracking)
        while not over.wait(_LOOK_SECONDS):
            follower.look()
        follower.look(is_last=True)
        tracking.close()
        problems = [*tracking.problems, *_trace(folder, content.traces.endpoint, began)]
        os.write(answer, json.dumps({"problems": problems}).encode())
        os._exit(0)  # a package's threads may still wait for a server


def _trace(folder: Path, endpoint: str, since: float) -> list[str]:
    """Have what a run did since a time sent as spans; return what could not be."""
    problems: list[str] = []
    if traces := open_traces(endpoint, "wardround-simulation", problems.append):
        for run in runs_in(folder):
            traces.write(spans_of(run, since))
        traces.close()
    return [f"{one[0].upper()}{one[1:]}." for one in problems]


def _when_input_ends() -> threading.Event:
    over = threading.Event()

    def wait() -> None:
        os.read(0, 1)  # a line, or its end where who wrote it is gone
        over.set()
        time.sleep(_LAST_SECONDS)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return over


if __name__ == "__main__":
    main(sys.argv[1:])
