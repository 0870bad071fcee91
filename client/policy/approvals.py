"""What a person of this hospital decided about studies, and the studies that wait for a decision.

``approvals.toml`` of the site folder holds the decisions, ``studies`` what was decided on and
``state/pending`` what waits, as files.
A decision here counts beside ``approved`` in ``policy.toml``; a rejection wins over both.
"""

import getpass
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wardround.common.errors import InputError, PolicyError
from wardround.common.files.account import this_account, wrong_account
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.files.lock import held_alone
from wardround.common.files.validated_toml import read_toml
from wardround.common.runtime.fields import OfForm
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study

APPROVALS_FILE, PENDING_FOLDER = "approvals.toml", "pending"
STUDIES_FOLDER = "studies"  # of a site folder: each study that was decided on, as a file
MOST_PENDING = 50  # a server may name any number of studies
_LARGEST_BYTES = 200_000  # of a study
# Eight digits of a digest can be met by trying 2^32 studies, in hours; 16 cannot.
SHORTEST = 16
_DIGITS = re.compile(r"[0-9a-f]{16,64}")
_FULL = 64  # hexadecimal digits of a SHA-256

Digest = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]
Verdict = Literal["approved", "rejected"]


class Decision(BaseModel):
    """One decision.

    Attributes:
        account: Who decided, as the operating system knows them.
        study: The study's own name, where it was known.
        rounds: How many rounds an approval is for; it adds to those of earlier ones.
        terms: What the person was told of the study when they approved it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    verdict: Verdict
    date: datetime
    account: str
    study: str = ""
    rounds: Annotated[int, Field(ge=0)] = 0
    terms: tuple[str, ...] = ()


class _Decisions(BaseModel):
    """The content of the file; the last decision about a digest counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person is told before they approve a study, and what is written down of it.

    Attributes:
        rounds: That this approval is for.
        lines: What is asked, spent, and left, a sentence a line.
    """

    rounds: int
    lines: tuple[str, ...]


NO_TERMS = Terms(0, ())  # nobody was told anything: an approval is then for the rounds of one


@dataclass(frozen=True, slots=True)
class PendingStudy:
    """A study that waits for a decision.

    Attributes:
        path: Its file, for ``wardround site explain``.
        since: When it was first asked for.
    """

    study: Study
    path: Path
    since: datetime


def read_decisions(folder: Path) -> tuple[Decision, ...]:
    """Return the decisions of a site folder, the oldest first.

    Raises:
        PolicyError: The file is damaged: then nothing is allowed.
    """
    path, none = folder / APPROVALS_FILE, _Decisions()
    return read_toml(path, _Decisions, PolicyError, absent=none, cached=True).decision


def approvals_of(folder: Path, digest: str) -> tuple[Decision, ...]:
    """Return the approvals of a study, the oldest first, whatever was decided after them.

    Raises:
        PolicyError: The file is damaged.
    """
    decisions = read_decisions(folder)
    return tuple(one for one in decisions if (one.digest, one.verdict) == (digest, "approved"))


def decide(
    folder: Path,
    digest: str,
    verdict: Verdict,
    study: Study | None = None,
    terms: Terms = NO_TERMS,
) -> Decision:
    """Write a decision down, and keep what it is about; it waits no longer.

    Args:
        study: What is decided on; by default the one of this digest that the site was asked for.
        terms: What the person was told of it, where they approve.

    Raises:
        InputError: It cannot be written.
        PolicyError: The file is damaged.
    """
    known = study_file(folder, digest)
    if study is None and known is not None:
        study = load_study(known, planned=False)
    decision = Decision(
        digest=digest,
        verdict=verdict,
        date=datetime.now(UTC).replace(microsecond=0),
        account=_account(),
        study="" if study is None else study.name,
        rounds=terms.rounds,
        terms=terms.lines,
    )
    try:
        with held_alone(folder):  # one process at a time adds to the file
            if study is not None:
                make_private_folder(folder / STUDIES_FOLDER)
                replace_file(folder / STUDIES_FOLDER / f"{digest}.toml", study.to_toml())
            _write(folder / APPROVALS_FILE, (*read_decisions(folder), decision))
            _pending_place(folder, digest).unlink(missing_ok=True)
    except OSError as error:
        remedy = wrong_account(folder)
        msg = f"cannot write {folder / APPROVALS_FILE} ({error.strerror}): {remedy}"
        raise InputError(msg) from None
    return decision


def note_pending(folder: Path, study: Study) -> None:
    """Keep a study for a person to read; one too many or too large is not kept."""
    place, text = _pending_place(folder, study.digest), study.to_toml().encode()
    if place.exists() or len(text) > _LARGEST_BYTES:
        return
    try:
        make_private_folder(place.parent)
        if len(list(place.parent.iterdir())) < MOST_PENDING:
            replace_file(place, text)
    except OSError:  # the study is refused all the same; it can be read from its own file
        return


def pending_studies(folder: Path) -> tuple[PendingStudy, ...]:
    """Return the studies that wait for a decision, the oldest first.

    Raises:
        StudyError: A file is damaged.
    """
    found = [
        PendingStudy(
            load_study(path, planned=False), path, datetime.fromtimestamp(path.stat().st_mtime, UTC)
        )
        for path in (folder / "state" / PENDING_FOLDER).glob("*.toml")
    ]
    return tuple(sorted(found, key=lambda pending: (pending.since, pending.path.name)))


def pending_file(folder: Path, digits: str) -> Path | None:
    """Return the file of the pending study whose digest begins so, if there is exactly one."""
    if not _DIGITS.fullmatch(digits):
        return None
    found = list((folder / "state" / PENDING_FOLDER).glob(f"{digits}*.toml"))
    return found[0] if len(found) == 1 else None


def study_file(folder: Path, digits: str) -> Path | None:
    """Return the file of the one study that waits or was decided on whose digest begins so."""
    if not _DIGITS.fullmatch(digits):
        return None
    found = {
        path.stem: path
        for place in (folder / STUDIES_FOLDER, folder / "state" / PENDING_FOLDER)
        for path in place.glob(f"{digits}*.toml")
    }
    return next(iter(found.values())) if len(found) == 1 else None


def full_digest(folder: Path, digits: str) -> str:
    """Return the digest that these digits begin, of a study that is known here or given in full.

    Raises:
        InputError: They name none, or several.
    """
    if len(digits) == _FULL and _DIGITS.fullmatch(digits):
        return digits
    known = {decision.digest for decision in read_decisions(folder)}
    known |= {path.stem for path in (folder / "state" / PENDING_FOLDER).glob("*.toml")}
    found = [digest for digest in known if _DIGITS.fullmatch(digits) and digest.startswith(digits)]
    if len(found) == 1:
        return found[0]
    msg = (
        f"{digits!r} names {len(found)} studies of this site: give at least {SHORTEST} digits of "
        "one that 'wardround site pending' lists, or all 64."
    )
    raise InputError(msg)


def _write(path: Path, decisions: tuple[Decision, ...]) -> None:
    import tomli_w

    said = [one.model_dump(mode="json", exclude_defaults=True) for one in decisions]
    replace_file(path, tomli_w.dumps({"decision": said}).encode())


def _pending_place(folder: Path, digest: str) -> Path:
    return folder / "state" / PENDING_FOLDER / f"{digest}.toml"


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return this_account().name
