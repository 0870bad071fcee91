"""The instruction that a site works on and its last reply, as files in ``state/jobs``."""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from wardround.client.privacy.ledger.outbox import DAY_SECONDS
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.flower.messages.envelope import Envelope

JOBS_FOLDER = "jobs"
_KEPT_KIND = "train"
_QUESTIONS = "query"  # how kinds of messages begin that carry no model


class JobFiles:
    """The job files of one site; one daemon uses it.

    The reply to a training stays until another training is asked for: asked the same once more, by
    a server that was restarted say, the site neither fetches the model again nor trains again. It
    goes before, once the server says that it has counted it, or is old. Such
    a server first asks who is there, so answers to all else have a place of their own, and so have
    questions: what an interrupted instruction has brought of its model stays until the next one.
    """

    def __init__(self, state_folder: Path) -> None:
        self.folder = state_folder / JOBS_FOLDER
        make_private_folder(self.folder)
        self.instruction, self.reply = (
            self.folder / "instruction.message",
            self.folder / "reply.message",
        )
        self._key = self.folder / "reply.key"
        self._passing = self.folder / "passing.message"
        self._question = self.folder / "question.message"
        begun = set(self.folder.glob("*.part")) - {self.instruction.with_suffix(".part")}
        for left in (self.instruction, self._question, self._passing, *begun):
            left.unlink(missing_ok=True)

    def has_reply(self, key: str) -> bool:
        """Whether the kept reply is to this instruction."""
        try:
            return self.reply.exists() and self._key.read_text(encoding="ascii").split()[0] == key
        except (OSError, ValueError, IndexError):
            return False

    def store_reply(self, key: str, run: str, number: int) -> None:
        """Keep the reply that lies there, as the one to this instruction for a round of a run."""
        replace_file(self._key, f"{key} {run} {number}".encode())

    def forget_counted(self, run: str, number: int) -> None:
        """Remove the kept reply if it is one of a run until a round: the server has counted it."""
        try:
            _, kept_run, kept_number = self._key.read_text(encoding="ascii").split()
            is_counted = kept_run == run and int(kept_number) <= number
        except (OSError, ValueError):
            return
        if is_counted:
            self.forget_reply()

    def forget_old(self, days: float) -> None:
        """Remove the kept reply once it is so many days old."""
        with suppress(FileNotFoundError):
            if time.time() - self.reply.stat().st_mtime > days * DAY_SECONDS:
                self.forget_reply()

    def place_of(self, kind: str) -> Path:
        """Return where a message of a kind is kept while it is answered."""
        return self._question if kind.startswith(_QUESTIONS) else self.instruction

    def place_for(self, kind: str) -> Path:
        """Return where the reply to a kind of message goes."""
        return self.reply if kind == _KEPT_KIND else self._passing

    def forget_reply(self, kind: str = _KEPT_KIND) -> None:
        """Remove the last reply to a kind of message."""
        if kind == _KEPT_KIND:
            self._key.unlink(missing_ok=True)
        self.place_for(kind).unlink(missing_ok=True)

    def drop_instruction(self) -> None:
        """Remove what was asked, once it is done with."""
        for asked in (self.instruction, self._question):
            asked.unlink(missing_ok=True)


def key_of(envelope: Envelope, study: str, policy: bytes) -> str:
    """Return what two messages have in common that ask for the same: each number, each word.

    Args:
        policy: The site's, as it is written: a reply that was checked by another one is not sent.
    """
    content = [child.object_id for child in envelope.tree.children]
    return hashlib.sha256(repr((envelope.kind, content, study, policy)).encode()).hexdigest()
