"""Secrets of masked rounds that nobody goes on with: erased, so that a thief finds none.

The next round takes the place of the one before, and at the end of a run the server says so. Here
are those of runs that ended otherwise, and of sites that were away when it was said.
"""

import time
from contextlib import suppress
from pathlib import Path

from wardround.common.files.atomic import replace_file
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.site_state import SiteRound

MASKING_FOLDER = "masking"
STATE, WORDS_KEPT = "round", "words"  # in a folder for each run
# The same of a measurement that is no part of a round.
MEASURING, WORDS_MEASURED = "measurement", "measured-words"
KEPT = {STATE: WORDS_KEPT, MEASURING: WORDS_MEASURED}
_IDLE_SECONDS = 86_400.0  # a round whose server is away for longer is over


def erase_idle(site: Path, seconds: float = _IDLE_SECONDS) -> int:
    """Erase the secrets of rounds that nobody has gone on with; return of how many.

    Of each stays which it was, and the hash of what was masked, so that it is never masked again.

    Args:
        site: The site folder.
        seconds: For how long nobody has.

    Raises:
        OSError: The folder cannot be written.
    """
    found, now = 0, time.time()
    states = [(path, words) for kept, words in KEPT.items() for path in _found(site, kept)]
    for path, words in states:
        # One from tomorrow was written by a clock that stood wrong: nobody knows how old it is.
        if abs(now - path.stat().st_mtime) < seconds:
            continue
        with suppress(MaskingError):  # what cannot be read holds no secret that could be used
            state = SiteRound.from_bytes(path.read_bytes())
            if not state.is_over:
                replace_file(path, state.erased().to_bytes())
                found += 1
        (path.parent / words).unlink(missing_ok=True)
    return found


def _found(site: Path, name: str) -> list[Path]:
    return sorted((site / MASKING_FOLDER).glob(f"*/{name}"))
