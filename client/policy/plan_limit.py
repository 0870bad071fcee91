"""How long a site works out what an approved study would spend."""

from collections.abc import Iterator
from contextlib import contextmanager

from wardround.common.errors import StudyError
from wardround.common.runtime.system.alarm import AlarmError, interrupted_after

PLAN_SECONDS = 120.0  # the longest of sensible studies takes half a minute


@contextmanager
def plan_limit() -> Iterator[None]:
    """Limit the accounting that is done within.

    Raises:
        StudyError: It took too long.
    """
    try:
        with interrupted_after(PLAN_SECONDS):
            yield
    except AlarmError:
        msg = (
            f"what the study spends is not worked out after {PLAN_SECONDS:g} s: "
            "ask for fewer steps, or for an epsilon and a delta that are less extreme."
        )
        raise StudyError(msg) from None
