"""Names of files and folders that every system takes."""

import re
from collections.abc import Iterable

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
# Windows' devices, whatever follows the first dot.
_DEVICES = frozenset(
    (
        *("con", "prn", "aux", "nul", "conin$", "conout$"),
        *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"),
    )
)


def fits_everywhere(name: str) -> bool:
    """Whether every system can have a file or a folder of this name."""
    device = name.partition(".")[0].rstrip(" ").casefold()
    if not name or name != name.rstrip(" .") or name in (".", ".."):
        return False
    return not _FORBIDDEN.search(name) and device not in _DEVICES


def same_somewhere(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that are one file where capitals do not count; None if there are none."""
    seen = dict[str, str]()
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None
