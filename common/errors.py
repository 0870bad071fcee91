"""Errors a person can act on: the fact with its value, then the remedy.

Exit codes of the command line: 0 done, 1 a check found something wrong or a defect of ours, 2 the
input was refused, 3 the run could not go on, 130 stopped by the user.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb

# What a traceback calls a file of a package that a study names (common/files/packages).
_OF_A_PACKAGE = re.compile(r"<([a-z0-9-]+) [0-9a-f]{16}>/(.+)")
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


class PackageError(StudyError):
    """A package that a study names is not installed as the study names it."""


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


def describe_defect(error: BaseException) -> str:
    """Return what a defect is and where, without its own text, which may name a patient's file."""
    frames = extract_tb(error.__traceback__)
    for frame in reversed(frames):
        strange = _OF_A_PACKAGE.match(frame.filename)
        if strange is not None:
            where = f"{strange[2]}:{frame.lineno}"
            return (
                f"a defect of the package {strange[1]}, whose author should hear of it "
                f"({type(error).__name__} at {where})"
            )
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"a defect of wardround ({type(error).__name__}{place})"


def known_names(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name: what is close to it, and all that is known.

    Args:
        kind: What is being chosen, e.g. "network".
    """
    names = sorted(known)
    close = nearest(name, names)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


# What people of the field write, in small letters and digits alone; what we call it.
_USUAL = {
    "acc": ("accuracy",),
    "auc": ("auroc",),
    "bs": ("batch_size",),
    "clip": ("clip_norm", "gradient_clip"),
    "epochs": ("local_epochs",),
    "eps": ("epsilon",),
    "epsilontotal": ("epsilon",),
    "gpu": ("cuda",),
    "lr": ("learning_rate",),
    "maxgradnorm": ("clip_norm",),
    "minfitclients": ("minimum_sites",),
    "minclients": ("minimum_sites",),
    "mri": ("mr",),
    "mu": ("proximal_weight",),
    "nrounds": ("rounds",),
    "numrounds": ("rounds",),
    "optimizer": ("optimiser",),
    "normalization": ("normalisation",),
    "sigma": ("noise_multiplier",),
    "steps": ("local_steps",),
    "wd": ("weight_decay",),
}


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was most likely meant, None if there is none.

    In this order: the same but for capitals, blanks and hyphens (``UNet``); what the field calls it
    (``lr``); the first letters of its words (``gc`` for ``gradient_clip``); what looks like it.

    Args:
        cutoff: How much must look alike for the last, in [0, 1].
    """
    by_letters = {_letters(one): one for one in sorted(known, reverse=True)}
    letters = _letters(name)
    if letters in by_letters:
        return by_letters[letters]
    for usual in _USUAL.get(letters, ()):
        if usual in by_letters.values():
            return usual
    initials = {
        "".join(word[:1] for word in re.split("[_-]", one)): one for one in by_letters.values()
    }
    if len(letters) > 1 and letters in initials:
        return initials[letters]
    close = get_close_matches(letters, by_letters, n=1, cutoff=cutoff)
    return by_letters[close[0]] if close else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name).casefold())  # from Python anything may come


def install_command(*extras: str) -> str:
    """Return the command that installs what extras of wardround need, package by package.

    An extra can only be asked for by our own name, which is on no package index: who registers it
    there would get code into hospitals.

    Args:
        extras: Names of ``optional-dependencies`` in pyproject.toml, e.g. "privacy".
    """
    from importlib.metadata import requires

    markers = {f'extra == "{extra}"' for extra in extras}
    wanted = [one.replace("'", '"').partition(";") for one in requires("wardround") or ()]
    packages = [name.strip() for name, _, marker in wanted if marker.strip() in markers]
    return "pip install " + " ".join(f"'{name}'" for name in packages)
