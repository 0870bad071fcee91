"""The worker process of a site's daemon: torch is imported, data and network stay loaded.

It answers one message after the other, read from a file and written to a file, and says when it is
done over a socket, one line of JSON each way. It ends with the daemon. Whatever goes wrong with a
message, the answer is a refusal that has passed the site's door.

Run as ``python -m wardround.client.worker DESCRIPTOR``.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.approvals import note_pending
from wardround.client.policy import open_policy
from wardround.common.errors import ModelError, PolicyError, RunError, WardroundError
from wardround.common.flower.parcels import Parcel, read_message, write_message
from wardround.common.study import study_from_json
from wardround.common.update import unpack_refusal

if TYPE_CHECKING:
    from flwr.app import Context, Message

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # where memory runs out, the worker ends and not the daemon


@dataclass(frozen=True, slots=True)
class Job:
    """A message to answer.

    Attributes:
        order: The file with the message.
        answer: Where the answer goes; with ``again`` it is there and is sent once more.
        site: The site folder.
        study: The run's study, as JSON.
        limit: The most bytes that the message may have in memory.
        refuse: Why the message is refused without work, a key of REFUSED; "" for work.
        again: Whether this very order was answered before.
    """

    order: str
    answer: str
    site: str
    study: str
    limit: int
    refuse: str = ""
    again: bool = False

    def to_line(self) -> bytes:
        """Return the job as it travels to the worker."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Done:
    """What the worker says of a message.

    Attributes:
        refused: A key of REFUSAL_CODES; "" if there is an answer.
        is_kept: Whether the answer may be sent again if the same is asked.
    """

    refused: str
    is_kept: bool

    def to_line(self) -> bytes:
        """Return it as it travels to the daemon."""
        return json.dumps(asdict(self)).encode() + b"\n"


REFUSED: dict[str, WardroundError] = {
    "size": ModelError("the message is larger than the policy's largest_message_megabytes allow."),
    "policy": PolicyError("the site has no policy that can be read: nothing is allowed."),
    "died": RunError(
        "the worker process ended twice over this message: it may need more memory than there is."
    ),
}


def main(descriptor: int) -> None:
    """Answer jobs until the daemon closes the socket."""
    _end_with_parent()
    # A Ctrl-C goes to both processes; the daemon decides what becomes of the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as lines:
        _warm_up()
        for line in lines:
            channel.sendall(work(Job(**json.loads(line))).to_line())


def work(job: Job) -> Done:
    """Answer a message.

    Raises:
        OSError: The answer cannot be written.
    """
    from flwr.app import Context, RecordDict

    with Parcel(Path(job.order)) as parcel:
        asked = parcel.envelope.opened()
    metadata = asked.metadata
    context = Context(
        run_id=metadata.run_id,
        node_id=metadata.dst_node_id,
        node_config={"site": job.site},
        state=RecordDict(),
        run_config={"study": job.study},
    )
    reply = _reply(job, asked, context)
    write_message(Path(job.answer), reply)
    refusal = unpack_refusal(reply.content)
    if refusal is None:
        return Done("", is_kept=_is_repeatable(job, metadata.message_type))
    if refusal.code == "policy":
        _note_pending(Path(job.site), job.study)
    return Done(refusal.code, is_kept=False)


def _reply(job: Job, asked: "Message", context: "Context") -> "Message":
    from wardround.client.app import answer_again, app, refuse

    if job.refuse:
        return refuse(asked, context, REFUSED[job.refuse])
    if job.again:
        return answer_again(asked, context, read_message(Path(job.answer), sys.maxsize).content)
    try:
        message = read_message(Path(job.order), job.limit)
        return app(message, context)
    except ModelError as error:
        return refuse(asked, context, error)
    except Exception as error:  # Flower's, of a kind of message that nobody answers
        logger.warning("not answered: %s", type(error).__name__)
        return refuse(asked, context, ModelError("nobody here answers this kind of message."))


def _is_repeatable(job: Job, kind: str) -> bool:
    """Whether an answer is kept here: a private one has its own place, others cost nothing."""
    return kind == "train" and study_from_json(job.study).privacy.mode == "none"


def _note_pending(folder: Path, text: str) -> None:
    """Keep a study that nobody has decided on, for a person to read."""
    with suppress(WardroundError):
        study = study_from_json(text)
        policy = open_policy(folder)
        if policy.approved != "any" and study.digest not in (*policy.approved, *policy.rejected):
            note_pending(folder, study)


def _warm_up() -> None:
    """Import what every study needs; the first optimiser makes torch import its compiler."""
    import torch

    import wardround.client.app  # noqa: F401

    torch.optim.SGD([torch.zeros(1)]).step()


def _end_with_parent() -> None:
    """Have the kernel end this process when the daemon's ends; elsewhere than on Linux, nothing."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")


if __name__ == "__main__":
    main(int(sys.argv[1]))
