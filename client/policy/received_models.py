"""Which models a site was sent in each study: a hash a line, ``received/DIGEST`` of its folder.

A study that goes on from another one says which model it starts from. A site that took part in the
other one holds that against what it was sent there: it needs nobody's word for it.
"""

import os
import re
from pathlib import Path

from wardround.common.errors import RunError
from wardround.common.files.atomic import make_private_folder, open_or_make

RECEIVED_FOLDER = "received"
_LINE = re.compile(r"[0-9a-f]{64}")
_DIGITS = 64
_APPENDING = os.O_WRONLY | os.O_APPEND


def received_models(folder: Path, study: str) -> frozenset[str]:
    """Return the hashes of the models that a site was sent in a study; none where it had no part.

    Args:
        folder: The site's.
        study: The study's digest.

    Raises:
        RunError: They cannot be read.
    """
    try:
        content = (folder / RECEIVED_FOLDER / study).read_text(encoding="ascii")
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(_unusable(folder, study, error)) from None
    return frozenset(line for line in content.splitlines() if _LINE.fullmatch(line))


def note_received(folder: Path, study: str, model: str, most: int | None = None) -> None:
    """Write down a model that was sent, once.

    Args:
        folder: The site's.
        study: The study's digest.
        model: Its hash, 64 hexadecimal digits.
        most: How many models the study may send; None for no limit.

    Raises:
        RunError: It cannot be written down, or it is one more than the study may send.
    """
    known = received_models(folder, study)
    if model in known:
        return
    if most is not None and len(known) >= most:
        msg = f"a study of its length sends no more than {most} models to be measured: refused."
        raise RunError(msg)
    path = folder / RECEIVED_FOLDER / study
    try:
        make_private_folder(path.parent)
        descriptor = open_or_make(path, _APPENDING)
        with os.fdopen(descriptor, "ab") as stream:
            # A line that a kill has torn is ended first, and is then none.
            torn = path.stat().st_size % (_DIGITS + 1)
            stream.write(b"\n" * bool(torn) + model.encode("ascii") + b"\n")
    except OSError as error:
        raise RunError(_unusable(folder, study, error)) from None


def _unusable(folder: Path, study: str, error: Exception) -> str:
    said = getattr(error, "strerror", None) or "it holds other signs than hexadecimal digits"
    return (
        f"cannot use {folder / RECEIVED_FOLDER / study} ({said}): make it writable for this "
        "account, or put a copy back. It says which models this site was sent."
    )
