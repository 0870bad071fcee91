"""Taking in what one site sent: whatever goes wrong with it is a refusal of that site.

A site may send anything. What our checks foresee is refused in our own words. What they do not
foresee is refused too, and the others' round goes on; where it happened is logged, without the text
of the error, which may repeat what the site sent. What only this server's disk or database can do
wrong is nobody's refusal, and ends the run as it must.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from wardround.common.errors import RunError, WardroundError
from wardround.common.runtime.fields import plain

logger = logging.getLogger(__name__)
_OWN = (OSError, sqlite3.Error)


class RefusedReplyError(RunError):
    """What a site sent is not counted; the text is short, printable, and safe to log."""


@contextmanager
def taking_in(site: str) -> Iterator[None]:
    """Turn what goes wrong inside into the refusal of a site.

    Inside stands what reads and checks a reply, and nothing that changes what other sites sent.

    Args:
        site: Its name, as this server knows it.

    Raises:
        RefusedReplyError: The reply is not counted.
        OSError, sqlite3.Error: The server's own disk or database failed.
    """
    try:
        yield
    except _OWN:
        raise
    except WardroundError as error:
        raise RefusedReplyError(plain(error)) from None
    except Exception as error:
        kind, place = type(error).__name__, _place_of(error)
        logger.error("reply not foreseen site=%s error=%s at=%s", site, kind, place)
        msg = f"its reply could not be taken in ({kind}); the server's log says where: not counted."
        raise RefusedReplyError(msg) from None


def _place_of(error: Exception) -> str:
    """Return the lines that led to an error, innermost last, without what they held."""
    frames = extract_tb(error.__traceback__)
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
