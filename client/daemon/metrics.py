"""What a site's daemon measures of itself for Prometheus; no number of it is about a patient.

No study, data set or person is named: the names of a hospital's studies are the hospital's.
"""

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import wardround
from wardround.client.daemon.status import StatusBoard
from wardround.client.policy.approvals import pending_studies
from wardround.client.privacy.ledger.file import LEDGER_FILE, find_ledger_folder
from wardround.client.site.credentials import TLS_CERTIFICATE
from wardround.client.site.folder import Site
from wardround.common.errors import WardroundError
from wardround.common.flower.supernode.fleet_client import FLEET_CODES
from wardround.common.messages.refusals import REFUSAL_WORDS
from wardround.common.monitoring.listener import MetricsListener
from wardround.common.monitoring.prometheus import (
    OTHER,
    Part,
    counter,
    counters,
    gauge,
    gauges,
    served,
    versions,
)
from wardround.common.security.tls_key_pair import read_certificate

if TYPE_CHECKING:
    from prometheus_client.core import Metric

logger = logging.getLogger(__name__)
PREFIX = "wardround_site"
_LEDGER_MODULE = "wardround.client.privacy.ledger.remaining"
_LOOK_SECONDS, _ACCOUNTING_SECONDS = 60.0, 600.0
_DAEMON_CODES = ("run-ended", "lost", "disk", "internal", "renewal")
_PARTS = ("train", "validation", "test", "all")


class SiteMonitor:
    """Answers Prometheus while the daemon runs, or does nothing."""

    def __init__(self, listener: MetricsListener | None, budget: "BudgetWatch | None") -> None:
        self._listener, self._budget = listener, budget

    def close(self) -> None:
        """Answer no more."""
        if self._listener is not None:
            self._listener.close()
        if self._budget is not None:
            self._budget.close()


def site_metrics_served(site: Site, board: StatusBoard) -> SiteMonitor:
    """Answer Prometheus where ``site.toml`` says so; what fails is logged, and ends nothing."""
    address = site.settings.metrics
    if not address:
        return SiteMonitor(None, None)
    budget = BudgetWatch(site.folder)
    listener = served(address, PREFIX, SiteMetrics(site, board, budget).parts())
    if listener is None:
        return SiteMonitor(None, None)
    budget.start()
    return SiteMonitor(listener, budget)


class BudgetWatch:
    """Has what is spent of the privacy budget worked out when the ledger has grown.

    A process of its own does it and ends: the accountant's packages take memory for which a daemon,
    which is there for months, has no other use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, -1
        self._closing = threading.Event()
        self.ratios: dict[str, float] = {}

    def start(self) -> None:
        """Look from now on, in a thread."""
        threading.Thread(target=self._watch, name="budget", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def look(self) -> None:
        """Work it out anew if the ledger has changed."""
        try:
            changed = (find_ledger_folder(self._folder) / LEDGER_FILE).stat().st_mtime_ns
        except (OSError, WardroundError):
            return
        if changed == self._seen:
            return
        command = [sys.executable, "-m", _LEDGER_MODULE, str(self._folder)]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_ACCOUNTING_SECONDS, check=True
            )
            found = json.loads(done.stdout)
            self.ratios = {part: float(found[part]) for part in _PARTS if part in found}
            self._seen = changed
        except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
            logger.warning("what is spent of the budget is not known: %s", type(error).__name__)

    def _watch(self) -> None:
        self.look()
        while not self._closing.wait(_LOOK_SECONDS):
            self.look()


class SiteMetrics:
    """The measurements of one daemon."""

    def __init__(self, site: Site, board: StatusBoard, budget: BudgetWatch) -> None:
        self._site, self._board, self._budget = site, board, budget

    def parts(self) -> tuple[Part, ...]:
        """Return what is measured, part by part."""
        return (self._connection, self._work, self._budgets, self._machine, self._certificate)

    def _connection(self) -> "Iterator[Metric]":
        said, (counts, contact) = self._board.to_json(), self._board.counts()
        yield versions(PREFIX, version=wardround.__version__)
        connected = float(bool(said["connected_since"]))
        yield gauge(f"{PREFIX}_connected", "Whether the server is reached.", connected)
        text = "When the server last answered; 0 if it never did."
        yield gauge(f"{PREFIX}_last_contact_timestamp_seconds", text, contact)
        text = "Times that the server was not reached, by reason."
        failed = _by_code(counts, "connection", FLEET_CODES)
        yield counters(f"{PREFIX}_connection_failures", text, "reason", failed)

    def _work(self) -> "Iterator[Metric]":
        said, (counts, _) = self._board.to_json(), self._board.counts()
        yield gauge(f"{PREFIX}_working", "Whether it is at work.", said["work"] is not None)
        answered = float(str(said["answered"]))
        yield counter(f"{PREFIX}_answers", "Messages answered, refusals included.", answered)
        text = "Refusals, by the word that leaves the hospital."
        refused = _by_code(counts, "refusal", REFUSAL_WORDS)
        yield counters(f"{PREFIX}_refusals", text, "reason", refused)
        text = "Messages that were not answered, and other troubles, by reason."
        troubles = _by_code(counts, "daemon", _DAEMON_CODES)
        yield counters(f"{PREFIX}_troubles", text, "reason", troubles)
        sent = counts["sent", "bytes"]
        yield counter(f"{PREFIX}_sent_bytes", "Bytes of answers that left.", sent)
        restarts = max(0.0, float(str(said["worker_starts"])) - 1)
        yield counter(f"{PREFIX}_worker_restarts", "Times that the worker had died.", restarts)
        waiting = len(pending_studies(self._site.folder))
        yield gauge(f"{PREFIX}_studies_pending", "Studies that wait for a decision.", waiting)

    def _budgets(self) -> "Iterator[Metric]":
        text = (
            "Share of the lifetime cap of epsilon that is spent, of the data set with least left."
        )
        yield gauges(f"{PREFIX}_privacy_budget_spent_ratio", text, "part", self._budget.ratios)

    def _machine(self) -> "Iterator[Metric]":
        free = shutil.disk_usage(self._site.folder).free
        yield gauge(f"{PREFIX}_disk_free_bytes", "Room on the site folder's disk.", free)

    def _certificate(self) -> "Iterator[Metric]":
        text = "When the site's certificate expires."
        with suppress(WardroundError):
            certificate = read_certificate(self._site.key_folder / TLS_CERTIFICATE)
            expires = certificate.not_valid_after_utc.timestamp()
            yield gauge(f"{PREFIX}_certificate_expiry_timestamp_seconds", text, expires)


def _by_code(counts: Counter[tuple[str, str]], what: str, known: Iterable[str]) -> dict[str, float]:
    """Return the counts of a kind of trouble by the codes that are known, each of them."""
    found = {code: float(counts[what, code]) for code in known}
    whole = sum(number for (kind, _), number in counts.items() if kind == what)
    found[OTHER] = whole - sum(found.values())
    return found
