"""What sites asked to leave, as a server folder keeps it; and what became of it.

``withdrawals/STUDY/SITE-WITHOUT.json`` is the signed request, as it came. ``repeat.json`` of a
run's folder says that the run repeats another one without somebody.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.security.withdrawal.certificate import (
    CERTIFICATE_FILE,
    Checkpoint,
    RevokedModel,
    RunRounds,
)
from wardround.common.security.withdrawal.request import (
    Hex,
    SignedRequest,
    WithdrawalAnswer,
    Without,
    open_request,
)

REQUESTS_FOLDER, REPEAT_FILE = "withdrawals", "repeat.json"
_RUNS, _STATUS, _NOTED = "runs", "status.json", "noted"


class RepeatRecord(BaseModel):
    """That a run repeats another one without somebody.

    Attributes:
        request: The line of the signed request.
        parent_run: The folder of the run that is repeated.
        first_rounds: By site, the first round that it is asked in.
        seconds: What the repeat was said to take; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    site: str
    without: Without
    parent_run: str
    parent: RunRounds
    checkpoint: Checkpoint | None
    revoked: tuple[RevokedModel, ...]
    is_exact: bool
    why: tuple[str, ...]
    first_rounds: dict[str, int] = Field(default_factory=dict)
    seconds: float | None = None


class _Status(BaseModel):
    """What is read here of how a run stands."""

    digest: Hex
    state: Annotated[str, Field(max_length=64)]
    took_part: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()


def keep_request(folder: Path, signed: SignedRequest) -> SignedRequest:
    """Keep a site's request; the first of a kind counts, so that one sent again changes nothing.

    Returns:
        The one that counts.

    Raises:
        InputError: No run of this server has the site in the study.
        OSError: It cannot be written.
    """
    asked = signed.asked
    if not _took_part(folder, asked.study, asked.site):
        msg = "no run of this study at this server has this site in it."
        raise InputError(msg)
    kept = find_request(folder, asked.study, asked.site, asked.without)
    if kept is not None:
        return kept
    path = _place(folder, asked.study, asked.site, asked.without)
    make_private_folder(path.parent.parent)
    make_private_folder(path.parent)
    replace_file(path, signed.line)
    return signed


def find_request(folder: Path, study: str, site: str, without: Without) -> SignedRequest | None:
    """Return what a site asked of a study; None where it asked nothing that can be verified."""
    try:
        return open_request(_place(folder, study, site, without).read_bytes())
    except (OSError, InputError):
        return None


def requests_of(folder: Path) -> tuple[SignedRequest, ...]:
    """Return everything that sites asked, the oldest first; what was changed since is left out."""
    found = []
    for path in (folder / REQUESTS_FOLDER).glob("*/*.json"):
        try:
            found.append(open_request(path.read_bytes()))
        except (OSError, InputError):
            continue
    return tuple(sorted(found, key=lambda one: (one.asked.time, one.digest)))


def open_requests(folder: Path) -> tuple[SignedRequest, ...]:
    """Return what sites asked and no operator has begun yet, the oldest first."""
    records = (read_repeat(run_folder) for run_folder in _runs(folder))
    begun = {record.request.encode() for record in records if record is not None}
    return tuple(one for one in requests_of(folder) if one.line not in begun)


def answer_of(folder: Path, signed: SignedRequest) -> WithdrawalAnswer:
    """Return what has become of a request."""
    for run_folder in _runs(folder):
        record = read_repeat(run_folder)
        if record is None or record.request.encode() != signed.line:
            continue
        status = _status(run_folder)
        certificate = ""
        with suppress(OSError, UnicodeDecodeError):
            certificate = (run_folder / CERTIFICATE_FILE).read_text(encoding="ascii").rstrip("\n")
        if status is None:
            return WithdrawalAnswer(state=_NOTED)
        return WithdrawalAnswer(state=status.state, study=status.digest, certificate=certificate)
    return WithdrawalAnswer(state=_NOTED)


def read_repeat(run_folder: Path) -> RepeatRecord | None:
    """Return what a run repeats; None for a run that repeats none."""
    try:
        return RepeatRecord.model_validate_json((run_folder / REPEAT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write_repeat(run_folder: Path, record: RepeatRecord) -> None:
    """Say that a run repeats another one."""
    replace_file(run_folder / REPEAT_FILE, record.model_dump_json().encode())


def _took_part(folder: Path, study: str, site: str) -> bool:
    found = (_status(run) for run in _runs(folder))
    return any(
        one is not None and one.digest == study and site in (*one.took_part, *one.sites)
        for one in found
    )


def _runs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / _RUNS).glob("*") if path.is_dir())


def _status(run_folder: Path) -> _Status | None:
    try:
        return _Status.model_validate_json((run_folder / _STATUS).read_bytes())
    except (OSError, ValidationError):
        return None


def _place(folder: Path, study: str, site: str, without: Without) -> Path:
    name = hashlib.sha256(site.encode()).hexdigest()[:32]
    return folder / REQUESTS_FOLDER / study / f"{name}-{without}.json"
