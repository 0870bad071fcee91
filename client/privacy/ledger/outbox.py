"""Answers that a site has packed and not yet seen acknowledged: asked again, the same bytes.

Under differential privacy a second training is a second spend, and two noisy replies to one
tell more than one. A reply lies in ``outbox/`` of the site's folder, whole or absent, before it
leaves; it stays until the server says that it has counted it, or asks for a later round, and for
some days at most (``kept_answer_days`` of the policy).
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wardround.client.privacy.ledger.charges import TRAIN
from wardround.common.errors import RunError
from wardround.common.files.atomic import flush_folder, make_private_folder, replace_file

OUTBOX_FOLDER = "outbox"
_SUFFIX = ".answer"
DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ReplyKey:
    """Which order a reply is to.

    Attributes:
        study: Its digest.
        part: Whom it is about: those trained on, or those measured.
    """

    study: str
    run: str
    round: int
    attempt: int
    part: str = TRAIN


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A packed answer.

    Attributes:
        reservation: The number of the ledger's reservation that paid for it.
    """

    reservation: int
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


class Outbox:
    """The packed answers of a site.

    Args:
        site_folder: The site's folder.
        durable: Whether a reply waits for the disk; a simulation does without.
    """

    def __init__(self, site_folder: Path, durable: bool = True) -> None:
        self._folder = site_folder / OUTBOX_FOLDER
        self._durable = durable

    def find(self, key: ReplyKey) -> StoredReply | None:
        """Return the reply to an instruction; None if there is none, or its file is damaged."""
        try:
            header, _, content = self._place(key).read_bytes().partition(b"\n")
            said = json.loads(header)
            reply = StoredReply(int(said["reservation"]), content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return reply if said == _header(key, reply) else None

    def keep(self, key: ReplyKey, reply: StoredReply) -> None:
        """Keep a reply, whole or not at all; it is safe when this returns.

        Raises:
            RunError: It cannot be written.
        """

        def write(part: Path) -> None:
            with part.open("wb") as stream:
                stream.write(json.dumps(_header(key, reply)).encode() + b"\n")
                stream.write(reply.content)

        try:
            make_private_folder(self._folder)
            replace_file(self._place(key), write, durable=self._durable)
            if self._durable:
                flush_folder(self._folder.parent)
        except OSError as error:
            msg = (
                f"cannot keep the answer of round {key.round} ({error.strerror}), so it does not "
                "leave: make room on the site's disk."
            )
            raise RunError(msg) from None

    def drop_before(self, study: str, run: str, number: int) -> None:
        """Drop the replies of a run's rounds before one.

        A model is measured in the round after its own: that reply stays as long as that round's.
        What a killed process was writing goes too: who holds the ledger writes here alone.
        """
        self.drop_counted(study, run, number - 1)
        for path in self._folder.glob("*.part"):
            path.unlink(missing_ok=True)

    def drop_counted(self, study: str, run: str, number: int) -> None:
        """Drop the replies of a run until a round: the server has counted them."""
        run_name = _run_name(study, run)
        for path in self._files():
            name, _, place = path.name.partition("-")
            is_update = path.stem.endswith(f"-{TRAIN}")
            if name == run_name and int(place.partition("-")[0]) + (not is_update) <= number:
                path.unlink(missing_ok=True)

    def drop_old(self, days: float) -> None:
        """Drop what nobody has asked for in so many days, and what was left half written then."""
        for path in self._folder.glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > days * DAY_SECONDS:
                    path.unlink()

    def _place(self, key: ReplyKey) -> Path:
        name = f"{_run_name(key.study, key.run)}-{key.round:05d}-{key.attempt:05d}"
        return self._folder / f"{name}-{key.part}{_SUFFIX}"

    def _files(self) -> Iterator[Path]:
        return self._folder.glob(f"*-*-*{_SUFFIX}")


def _run_name(study: str, run: str) -> str:
    """Return what a run's files begin with; no word of a server stands in a file's name."""
    return hashlib.sha256(f"{study}\x00{run}".encode()).hexdigest()[:32]


def _header(key: ReplyKey, reply: StoredReply) -> dict[str, object]:
    return {**asdict(key), "reservation": reply.reservation, "sha256": reply.sha256}
