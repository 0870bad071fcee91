"""The privacy of the runs on a page, worked out beside the page: an accountant takes its time.

For patients' privacy a promise takes seconds of processor time, and what is spent is new after each
round. So it is worked out in a thread of its own, and then not again before a hundred times as long
has passed, so that it costs no more than a hundredth of a core.
"""

import threading
import time
from dataclasses import dataclass, field

from wardround.server.operators.messages import RunRecord
from wardround.server.operators.report.sections import count_rounds, privacy_sentences

_AT_FIRST = ("What is promised, and what of it is spent, is being worked out.",)
_SHARE = 100.0
_LEAST_SECONDS = 10.0


@dataclass(slots=True)
class _Words:
    words: tuple[str, ...] = _AT_FIRST
    rounds: dict[str, int] | None = None  # the answers of each site that they are about
    due_at: float = 0.0


@dataclass(slots=True)
class PrivacyTold:
    """What is told of the privacy of each run; one thread asks."""

    _told: dict[str, _Words] = field(default_factory=dict)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def words(self, record: RunRecord) -> tuple[str, ...]:
        """Return what is known by now, in sentences; what is newer comes at a later look."""
        run, rounds = record.details.summary, count_rounds(record)
        known = self._told.setdefault(run.run, _Words())
        is_due = run.is_over or time.monotonic() >= known.due_at
        if known.rounds != rounds and is_due and self._busy.acquire(blocking=False):
            work = threading.Thread(
                target=self._work_out, args=(record, known, rounds), name="privacy", daemon=True
            )
            work.start()
        return known.words

    def _work_out(self, record: RunRecord, known: _Words, rounds: dict[str, int]) -> None:
        began = time.thread_time()
        try:
            known.words, known.rounds = privacy_sentences(record), rounds
        finally:
            took = time.thread_time() - began
            known.due_at = time.monotonic() + max(_LEAST_SECONDS, _SHARE * took)
            self._busy.release()
