"""A path as a person gave it from Python: whatever is none is refused in words."""

import os
from os import PathLike
from pathlib import Path

from wardround.common.errors import InputError

_SHOWN = 100  # characters


def usable_path(given: object, what: str) -> Path:
    """Return a path that a system can look at; there need be nothing.

    Args:
        given: A text or a path; whoever has no type checker gives anything.
        what: What it is the path of, as "a run folder".

    Raises:
        InputError: It is no path, or one that no system can look at.
    """
    if not isinstance(given, str | PathLike):
        msg = f"{what} cannot be {type(given).__name__}: give its path as text, or a pathlib.Path."
        raise InputError(msg)
    try:
        path = Path(given)
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except PermissionError:
        msg = f"{what} cannot be looked at: {given}. Use the account that the folders belong to."
        raise InputError(msg) from None
    except (TypeError, ValueError, OSError):
        shown = ascii(str(given)[:_SHOWN])
        msg = f"{what} cannot have the path {shown}: no system takes it. Look at how it was made."
        raise InputError(msg) from None
    return path
