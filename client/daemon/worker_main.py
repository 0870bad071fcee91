"""The worker process of a site's daemon: torch is imported, data and network stay loaded.

It answers one message after the other, read from a file and written to a file, and says when it is
done over a socket, one line of JSON each way. It ends with the daemon, whatever ends that.

Run as ``python -m wardround.client.daemon.worker_main DESCRIPTOR PARENT``.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from wardround.client.daemon.jobs import Job

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # where memory runs out, the worker ends and not the daemon


def main(descriptor: int, parent: int) -> None:
    """Answer jobs until the daemon closes the socket."""
    _end_with(parent)
    # A Ctrl-C goes to both processes; the daemon decides what becomes of the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as lines:
        # Only now, so that the process ends with its parent from the first moment.
        from wardround.client.daemon.job_runner import answer_job

        for line in lines:
            channel.sendall(answer_job(Job(**json.loads(line))).to_line())


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends; elsewhere its socket's end does."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was said
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
