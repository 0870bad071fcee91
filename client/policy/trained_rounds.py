"""How often a site has trained for a study without privacy of patients: counted on its disk.

``rounds/DIGEST.jsonl`` of the site folder holds a line for each training, whatever its run, round
or attempt, from before it begins; what began and was killed is counted. A study with privacy of
patients is counted by the ledger.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from wardround.client.policy.rules import ROUNDS_RULE, DeniedError
from wardround.common.errors import RunError
from wardround.common.files.atomic import flush_folder, make_private_folder, open_or_make
from wardround.common.files.json_lines import append_line, canonical, split_lines
from wardround.common.messages.instructions import Instruction
from wardround.common.runtime.system.files import lock

ROUNDS_FOLDER = "rounds"


def trained_rounds(folder: Path, digest: str) -> int:
    """Return how many trainings of a study a site has begun.

    Raises:
        RunError: That cannot be read.
    """
    try:
        lines, _ = split_lines(_place(folder, digest).read_bytes())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise RunError(_unusable(folder, digest, error)) from None
    return len(lines)


def count_round(folder: Path, instruction: Instruction, allowed: int, durable: bool) -> None:
    """Count a training before it begins; it is on the disk when this returns.

    Args:
        folder: The site's.
        allowed: Trainings of this study that were approved, over all its runs.
        durable: Whether to wait for the disk; a simulation does without.

    Raises:
        DeniedError: As many were trained; nothing was written.
        RunError: It cannot be written down.
    """
    path = _place(folder, instruction.digest)
    try:
        make_private_folder(path.parent)
        descriptor = open_or_make(path, os.O_RDWR)
        try:
            lock(descriptor, wait=True)
            # One process at a time gets here, and a line without its end began no training.
            lines, torn = split_lines(_read(descriptor))
            _require_left(instruction.digest, len(lines), allowed)
            size = os.fstat(descriptor).st_size - len(torn)
            os.ftruncate(descriptor, size)
            append_line(descriptor, _line(instruction), size, durable)
        finally:
            os.close(descriptor)
        if durable:
            flush_folder(path.parent)
            flush_folder(folder)
    except OSError as error:
        raise RunError(_unusable(folder, instruction.digest, error)) from None


def _require_left(digest: str, trained: int, allowed: int) -> None:
    if trained >= allowed:
        msg = (
            f"{allowed} rounds of this study were approved and {trained} are trained, over all its "
            f"runs: who wants more approves it again, 'wardround site approve {digest[:16]}'."
        )
        raise DeniedError(msg, (ROUNDS_RULE,), digest)


def _line(instruction: Instruction) -> bytes:
    said = {
        "run": instruction.run,
        "round": instruction.round,
        "attempt": instruction.attempt,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return canonical(said) + b"\n"


def _read(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        stream.seek(0)
        return stream.read()


def _place(folder: Path, digest: str) -> Path:
    return folder / ROUNDS_FOLDER / f"{digest}.jsonl"


def _unusable(folder: Path, digest: str, error: OSError) -> str:
    return (
        f"cannot count the rounds of the study in {_place(folder, digest)} ({error.strerror}): "
        "make room, or make it writable for this account. Nothing is trained until then."
    )
