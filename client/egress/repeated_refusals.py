"""Refusals that repeat are counted, and written down at the 1st, 2nd, 4th, 8th ... time.

A server asks again and again while a study waits for an approval, and a hostile one may send
messages that are none, or name new studies, for ever. The audit log grows with the logarithm of it.
"""

from dataclasses import replace
from pathlib import Path

from wardround.common.security.audit_log import Event

_MOST_STUDIES = 256  # of a site that are counted each for itself
_MOST_KEYS = 4096  # of all sites of a process

_Key = tuple[Path, str, str]
_COUNTED: dict[_Key, int] = {}


def due(site: Path, event: Event) -> Event | None:
    """Return an event of a site as it is written down; None for a refusal that is not due again.

    What is no refusal is always due, and its study's refusals are counted anew.
    """
    if event.kind != "refusal":
        if event.study:
            for key in [key for key in _COUNTED if key[:2] == (site, event.study)]:
                del _COUNTED[key]
        return event
    key, of_any = (site, event.study, event.verdict), False
    if key not in _COUNTED and event.study and _studies_of(site) >= _MOST_STUDIES:
        key, of_any = (site, "any", event.verdict), True
    times = _COUNTED.pop(key, 0) + 1
    if len(_COUNTED) >= _MOST_KEYS:
        del _COUNTED[next(iter(_COUNTED))]
    _COUNTED[key] = times
    if times & (times - 1):
        return None
    if times == 1:
        return event
    said = f"{times} times, for one study or another" if of_any else f"{times} times"
    return replace(event, verdict=f"{event.verdict} ({said})")


def _studies_of(site: Path) -> int:
    return len({study for folder, study, _ in _COUNTED if folder == site and study})
