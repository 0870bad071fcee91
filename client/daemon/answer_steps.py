"""When an answer is sent: at the next full step after its instruction came, whatever it took.

How long a site works tells how many patients it has. The server sees when the last piece of an
instruction was fetched and when the answer comes. With a step longer than any answer takes, all
take the same; with a shorter one it sees a time rounded up to steps.
"""

import math
import time
from pathlib import Path

from wardround.client.daemon.shutdown import StopRequest
from wardround.client.daemon.worker_handle import AbandonedError
from wardround.client.policy.policy import open_policy
from wardround.common.errors import PolicyError

_LOOK_SECONDS = 0.2  # how often a wait looks whether it is to end


class AnswerSteps:
    """The steps of one site, by its policy's ``answer_step_seconds`` as it is now.

    Args:
        folder: The site's.
        stop: Ends a wait; the server then asks again.
    """

    def __init__(self, folder: Path, stop: StopRequest) -> None:
        self._folder, self._stop = folder, stop
        self._began = time.monotonic()

    def begin(self) -> None:
        """Note that an instruction is here."""
        self._began = time.monotonic()

    def wait(self) -> None:
        """Wait for the next step.

        Raises:
            AbandonedError: The daemon is to end.
        """
        step = self._step_seconds()
        if not step:
            return
        until = self._began + step * max(math.ceil((time.monotonic() - self._began) / step), 1)
        while (left := until - time.monotonic()) > 0:
            if self._stop.is_over():
                raise AbandonedError
            time.sleep(min(left, _LOOK_SECONDS))

    def _step_seconds(self) -> float:
        try:
            return open_policy(self._folder).answer_step_seconds
        except PolicyError:  # then nothing is allowed, and the one word is the same for all
            return 0.0
