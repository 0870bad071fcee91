"""The worker process of a site's daemon: torch is imported, data and network stay loaded.

It answers one message after the other, read from a file and written to a file, and says when it is
done over a socket, one line of JSON each way. It ends with the daemon, whatever ends that.

Run as ``python -m wardround.client.daemon.worker_main DESCRIPTOR PARENT``.
"""

import json
import logging
import socket
import sys

from wardround.client.daemon.jobs import Job
from wardround.common.runtime.printable import PrintableFormatter
from wardround.common.runtime.system.processes import be_first_to_end, end_with_parent
from wardround.common.runtime.system.signals import leave_signals_to_parent


def main(descriptor: int, parent: int) -> None:
    """Answer jobs until the daemon closes the socket."""
    end_with_parent(parent)
    be_first_to_end()
    leave_signals_to_parent()
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as lines:
        # Only now, so that the process ends with its parent from the first moment.
        from wardround.client.daemon.job_runner import answer_job

        for line in lines:
            channel.sendall(answer_job(Job(**json.loads(line))).to_line())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
