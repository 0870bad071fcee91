"""The signed record of a run's rounds: a line a commit, written before it, from round 0 on."""

import logging
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

import wardround
from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.messages.lineage import unpack_signed
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Model, Parameters
from wardround.common.runtime.code_digest import code_digest
from wardround.common.runtime.fields import FieldError
from wardround.common.security.lineage import (
    LARGEST_BYTES,
    LINEAGE_FILE,
    RoundMade,
    SignedRound,
    line_hash,
    open_envelope,
    open_line,
    sign_round,
)
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import Progress

logger = logging.getLogger(__name__)


class RoundLineage:
    """Collects what the sites sign of a round, and signs the round.

    A resumed run whose record does not reach its last commit, as one of an older version, has none
    from there on: a record with a gap would prove nothing.

    Args:
        folder: Of the commits.
        key: The server's.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey, study: Study) -> None:
        self._path, self._key, self._study = folder / LINEAGE_FILE, key, study
        self._last: tuple[str, str] | None = None  # the last line's hash, its model
        self._of = ("", "")  # the study and the run of the last line
        self._keys: dict[str, str] = {}  # of each site, the key that it signed with first
        self._sent: dict[int, set[str]] = {}  # of each round, the models that sites were sent
        self._counted: set[tuple[str, int]] = set()  # whose part of which round is in the record
        self._forget()

    def begin(self, progress: Progress, model: Model) -> None:
        """Go on from a commit: what was written after it is dropped."""
        lines = read_lines(self._path)[: progress.round + 1]
        if not lines and progress.round == 0:
            self._last = ("", "")
            self.commit(progress, model)
            return
        if len(lines) <= progress.round:
            logger.warning("no signed record: that of this run ends before its last commit")
            return
        try:
            made = self._recall(lines)
        except (ModelError, KeyError, TypeError, ValueError):
            logger.warning("no signed record: that of this run was changed on this disk")
            return
        replace_file(self._path, b"".join(line + b"\n" for line in lines), BY_UMASK)
        self._last = (line_hash(lines[-1]), made)
        self._forget(progress.round + 1)

    def send(self, model: Model) -> None:
        """Note a model that sites are sent in this round."""
        if self._last is not None:
            self._sent.setdefault(self._number, set()).add(digest(model))

    def take(self, site: str, content: RecordDict) -> SignedRound | None:
        """Return what a site signed of an update that has come, if it fits what came.

        It is read before the update's arrays are taken out of the message.
        """
        if self._last is None:
            return None
        try:
            signed = unpack_signed(content)
        except FieldError as error:
            logger.warning("site=%s: what it signed of its round cannot be read: %s", site, error)
            return None
        if signed is None:
            return None
        # An update of an earlier round is of a model that was sent in it: of another one the whole
        # record would be one that nobody can verify.
        is_sent = signed.part.model in self._sent.get(signed.part.round, ())
        is_its_own = self._keys.setdefault(site, signed.key) == signed.key
        if not (is_sent and is_its_own):
            logger.warning("site=%s: what it signed is not of the round it was asked for", site)
            return None
        return signed

    def count(self, signed: SignedRound | None) -> None:
        """Note that an update is in the round's model, and what its site signed of it."""
        own = None if signed is None else (signed.key, signed.part.round)
        if signed is None or own in self._counted or signed.key in {p.key for p in self._parts}:
            self._unsigned += 1
        else:
            self._counted.add((signed.key, signed.part.round))
            self._parts.append(signed)

    def commit(
        self, progress: Progress, model: Model | Parameters, mean: Parameters | None = None
    ) -> None:
        """Sign the round that makes a model, before it is committed.

        Args:
            mean: Of all models so far, where that is what is released.
        """
        if self._last is None:
            return
        previous, before = self._last
        own = (progress.digest, progress.run)
        made = RoundMade(
            study=progress.digest,
            run=progress.run,
            round=progress.round,
            model=digest(model),
            mean=digest(mean) if mean else "",
            parent=self._of if previous and self._of != own else None,
            before=before,
            previous=previous,
            sent=tuple(self._sent.get(progress.round, ())),
            code=(wardround.__version__, code_digest()),
            strategy=self._study.federation.strategy,
            parts=tuple(self._parts),
            unsigned=self._unsigned,
        )
        line = sign_round(self._key, made)
        with self._path.open("ab") as stream:
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._last, self._of = (line_hash(line), made.model), own
        self._forget(progress.round + 1)

    def _recall(self, lines: list[bytes]) -> str:
        """Take up what the rounds before a resumption sent and counted; return the last model.

        Raises:
            ModelError, KeyError, TypeError, ValueError: A line is not one that we wrote.
        """
        made = ""
        for number, line in enumerate(lines):
            opened = open_line(line)[0]
            predicate, made = opened["predicate"], str(opened["subject"][0]["digest"]["sha256"])
            self._of = (str(predicate["study"]), str(predicate["run"]))
            self._sent[number] = set(predicate["sent"])
            for envelope in predicate["receipts"]:
                statement, key = open_envelope(envelope)
                self._counted.add((key, int(statement["predicate"]["round"])))
        return made

    def _forget(self, number: int = 0) -> None:
        """Begin a round with nothing sent and nothing signed."""
        self._number = number
        self._parts: list[SignedRound] = []
        self._unsigned = 0


def read_lines(path: Path) -> list[bytes]:
    """Return the whole lines of a record; none where there is none."""
    content = path.read_bytes() if path.exists() else b""
    return content.split(b"\n")[:-1]


def lineage_of(folder: Path, kept: int) -> str:
    """Return the record that leads to a kept round; "" where there is none that may travel."""
    lines = read_lines(folder / LINEAGE_FILE)[: kept + 1]
    content = b"".join(line + b"\n" for line in lines)
    if len(lines) <= kept or not lines:
        return ""
    if len(content) > LARGEST_BYTES:
        logger.warning("the signed record is too long to travel with the model: it stays here")
        return ""
    return content.decode("ascii")
