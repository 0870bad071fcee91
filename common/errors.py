"""Errors a person can act on: the fact with its value, then the remedy.

Exit codes of the command line: 0 done, 1 a defect of ours, 2 the input was refused,
3 the run could not go on, 130 stopped by the user.
"""

import errno
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class WardroundError(Exception):
    """A refusal with a reason; its text is safe to show and to log.

    The text never holds a patient identifier, a file name of a patient's data, or pixel values:
    an examination is named by the row of its manifest.
    """

    exit_code = 2


class InputError(WardroundError):
    """What the user gave cannot be used as it is."""


class StudyError(InputError):
    """The study file says something that cannot be done."""


class DataError(InputError):
    """A site's manifest or images are not what the study needs."""


class ModelError(InputError):
    """A model's parameters are not those of the study's network, or cannot be read."""


class PolicyError(InputError):
    """A site's policy does not allow what is asked."""


class GuardError(WardroundError):
    """What was about to leave a site is not what may leave it."""


class RunError(WardroundError):
    """A run that had started could not go on."""

    exit_code = 3


class AuditError(RunError):
    """What a site does cannot be written down, so it does nothing."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the one it was raised over, and so on back to the first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        # Also what "from None" hides: httpcore does so with the TLS error behind its own.
        seen = seen.__cause__ or seen.__context__


def is_full_disk(error: BaseException) -> bool:
    """Whether an error comes from a disk that has no room or cannot be written."""
    return any(isinstance(seen, OSError) and seen.errno in _FULL_DISK for seen in causes(error))


def root_cause(error: BaseException) -> BaseException:
    """Return what was wrong at the beginning."""
    *_, first = causes(error)
    return first


def known_names(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name: what is close to it, and all that is known.

    Args:
        kind: What is being chosen, e.g. "network".
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."
