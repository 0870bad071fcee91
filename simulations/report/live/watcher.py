"""The process that serves a simulation's page: ``python -m ...watcher FOLDER``.

It says its link on standard output and ends with its standard input, that is with the process that
simulates, whatever becomes of that. Nothing of the simulation waits for it.
"""

import json
import os
import sys
import threading
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.html.live.serving import live_page
from wardround.common.runtime.system.processes import leave_cores_to_others
from wardround.common.runtime.system.signals import ignore_ctrl_c
from wardround.simulations.report.live.live_page import WatchedRun

_NICENESS = 10  # the simulation goes first
_LOOK_SECONDS = 0.5


def main() -> None:
    """Serve the page of the folder that the command line names."""
    ignore_ctrl_c()  # it is for the simulation
    leave_cores_to_others(_NICENESS)
    watched = WatchedRun(Path(sys.argv[1]))
    try:
        with live_page(watched.page()) as served:
            _say({"link": served.link})
            _wait_for_end()
            if watched.is_read:
                watched.draw()  # before readers are told that it is over: it takes a moment
            watched.ended.set()
    except WardroundError as error:
        _say({"error": str(error)})


def _wait_for_end() -> None:
    """Wait for a word on standard input, for its end, or for the end of who started this."""
    parent, heard = os.getppid(), threading.Event()

    def listen() -> None:
        sys.stdin.buffer.read(1)
        heard.set()

    threading.Thread(target=listen, daemon=True).start()
    while not heard.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            return


def _say(content: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
