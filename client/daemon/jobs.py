"""What the daemon asks its worker to do, and what the worker says when it is done."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """A message to answer.

    Attributes:
        instruction: The file with the message.
        reply: Where the reply goes; with ``again`` it is there and is sent once more.
        site: The site folder.
        study: The run's study, as JSON.
        limit: The most bytes that the message may have in memory.
        refuse: Why the message is refused without work, a key of answering.REFUSED; "" for work.
        again: Whether this very order was answered before.
    """

    instruction: str
    reply: str
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
        refused: A key of REFUSAL_CODES; "" if there is a reply.
        is_kept: Whether the reply may be sent again if the same is asked.
        run: Of the instruction, where it names one.
        round: Of the instruction.
        counted_round: The last round of the run whose reply the server has counted; -1: not said.
    """

    refused: str
    is_kept: bool
    run: str = ""
    round: int = 0
    counted_round: int = -1

    def to_line(self) -> bytes:
        """Return it as it travels to the daemon."""
        return json.dumps(asdict(self)).encode() + b"\n"
