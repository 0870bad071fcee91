"""What a server measures of itself for Prometheus: runs, rounds, sites, bytes, certificates.

Everything is read from what the server has anyway: its database, the histories of its runs, which
hold what the sites' guards let out, and its processes. No number is about a patient. Sites are
named only where the metrics can be read on this machine alone.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import wardround
from wardround.common.errors import InputError
from wardround.common.messages.refusals import REFUSAL_WORDS
from wardround.common.monitoring.addresses import is_loopback
from wardround.common.monitoring.prometheus import (
    OTHER,
    Part,
    bounded,
    counter,
    counters,
    gauge,
    gauges,
    versions,
)
from wardround.common.runtime.system.memory import memory_of
from wardround.common.security.tls_key_pair import read_certificate
from wardround.server.identity.pki import CA_FOLDER
from wardround.server.identity.server_certificate import SERVER_CERTIFICATE
from wardround.server.operators.connected_sites import connected_sites
from wardround.server.operators.run_summaries import HISTORY_FILE
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.store import (
    FAILED,
    FINISHED,
    QUEUED,
    RUNNING,
    STOPPED,
    RunRow,
    all_runs,
    all_sites,
)

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX = "wardround_server"
_STATES = (QUEUED, RUNNING, STOPPED, FINISHED, FAILED)
_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
_MOST_BYTES = 16 * 2**20  # of a history that are read at a time
# Beside the sites' own words: what the server says of a reply, by how its sentence begins.
_ABSENT, _LATE, _CHECK = "absent", "late", "check"


@dataclass(slots=True)
class _Counts:
    """What happened since the process began."""

    rounds: int = 0
    buckets: Counter[float] = field(default_factory=Counter)
    seconds_in_all: float = 0.0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    accepted_of: Counter[str] = field(default_factory=Counter)
    refused_of: Counter[str] = field(default_factory=Counter)


class Histories:
    """Counts rounds as they are written; what was there when the server began is not counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._over: set[str] = set()
        self.counts = _Counts()
        for row in all_runs(folder):
            self._read[row.run] = _size(self._path(row.run))

    def look(self, rows: Iterable[RunRow]) -> _Counts:
        """Count what is new."""
        for row in rows:
            if row.run not in self._over:
                self._count(row.run)
            if row.is_over:
                self._over.add(row.run)
            else:
                self._over.discard(row.run)
        return self.counts

    def _path(self, run: str) -> Path:
        return RunFolder(self._folder, run).checkpoints / HISTORY_FILE

    def _count(self, run: str) -> None:
        path, start = self._path(run), self._read.get(run, 0)
        size = _size(path)
        if size < start:  # a round that was never committed was cut off; it is made again
            self._read[run] = start = size
        if size == start:
            return
        with path.open("rb") as stream:
            stream.seek(start)
            lines = stream.read(_MOST_BYTES)
        whole = lines[: lines.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._add(json.loads(line))
        self._read[run] = start + len(whole)

    def _add(self, record: dict) -> None:  # type: ignore[type-arg] # JSON of our own
        counts, sites = self.counts, record["sites"]
        for refusal in record["refusals"]:
            counts.refused[code_of(str(refusal["reason"]))] += 1
            counts.refused_of[str(refusal["site"])] += 1
        if not sites:  # after the last round only measurements
            return
        seconds = float(record["seconds"])
        counts.rounds += 1
        counts.seconds_in_all += seconds
        counts.buckets.update(bound for bound in _BUCKETS if seconds <= bound)
        counts.accepted += len(sites)
        for site in sites:
            counts.accepted_of[str(site["site"])] += 1
            counts.bytes["to_sites"] += int(site["bytes_down"])
            counts.bytes["from_sites"] += int(site["bytes_up"])


def code_of(reason: str) -> str:
    """Return one of few words for why an update was not counted."""
    word = reason.partition(":")[0].strip()
    if word in REFUSAL_WORDS:
        return word
    if "too late" in reason or "did not answer" in reason or "no answer" in reason:
        return _LATE
    if "not connected" in reason or "not there" in reason:
        return _ABSENT
    return _CHECK


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """The measurements of one server folder.

    Attributes:
        address: On which they are served; decides whether sites are named.
        processes: Gives the process ids by kind: "link", "study".
    """

    folder: Path
    address: str
    processes: Callable[[], Mapping[str, tuple[int, ...]]]
    histories: Histories

    def parts(self) -> tuple[Part, ...]:
        """Return what is measured, part by part."""
        return (self._server, self._runs, self._rounds, self._sites, self._certificates)

    def _server(self) -> "Iterator[Metric]":
        yield versions(PREFIX, version=wardround.__version__)
        memory = {
            kind: sum(memory_of(one) for one in several)
            for kind, several in self.processes().items()
        }
        text = "Resident memory of the server's processes."
        yield gauges(f"{PREFIX}_memory_bytes", text, "process", memory)
        free = shutil.disk_usage(self.folder).free
        yield gauge(f"{PREFIX}_disk_free_bytes", "Room on the server folder's disk.", free)

    def _runs(self) -> "Iterator[Metric]":
        rows = all_runs(self.folder)
        states = Counter(row.state for row in rows)
        counted = {state: states[state] for state in _STATES}
        yield gauges(f"{PREFIX}_runs", "Runs by state.", "state", counted)
        yield gauge(f"{PREFIX}_queue_length", "Runs that wait for their turn.", states[QUEUED])
        running = [row.run for row in rows if row.state == RUNNING]
        done: dict[str, float] = {}
        planned: dict[str, float] = {}
        heard: dict[str, float] = {}
        for run in running:
            folder = RunFolder(self.folder, run)
            if (status := folder.status()) is not None:
                done[run], planned[run] = status.round, status.rounds
                heard[run] = _changed(folder.checkpoints / HISTORY_FILE)
        yield gauges(f"{PREFIX}_run_rounds_committed", "Rounds of a running run.", "run", done)
        yield gauges(f"{PREFIX}_run_rounds_planned", "Rounds its study asks for.", "run", planned)
        text = "When a running run last committed a round."
        yield gauges(f"{PREFIX}_run_last_round_timestamp_seconds", text, "run", heard)

    def _rounds(self) -> "Iterator[Metric]":
        from prometheus_client.core import HistogramMetricFamily

        counts = self.histories.look(all_runs(self.folder))
        buckets = [(f"{bound}", float(counts.buckets[bound])) for bound in _BUCKETS]
        buckets.append(("+Inf", float(counts.rounds)))
        text = "How long committed rounds took."
        yield HistogramMetricFamily(
            f"{PREFIX}_round_duration_seconds", text, buckets, counts.seconds_in_all
        )
        yield counter(f"{PREFIX}_updates_accepted", "Updates that were counted.", counts.accepted)
        text = "Answers that were refused or missing, by reason."
        refused = {word: counts.refused[word] for word in (*REFUSAL_WORDS, _ABSENT, _LATE, _CHECK)}
        yield counters(f"{PREFIX}_updates_refused", text, "reason", refused)
        text = "Bytes of models and updates of committed rounds."
        moved = {way: counts.bytes[way] for way in ("to_sites", "from_sites")}
        yield counters(f"{PREFIX}_transferred_bytes", text, "direction", moved)
        if is_loopback(self.address):
            text = "Updates of a site that were counted."
            yield counters(f"{PREFIX}_site_accepted", text, "site", counts.accepted_of)
            text = "Answers of a site that were refused or missing."
            yield counters(f"{PREFIX}_site_refused", text, "site", counts.refused_of)

    def _sites(self) -> "Iterator[Metric]":
        connected = connected_sites(self.folder)
        yield gauge(f"{PREFIX}_link_up", "Whether sites can reach it.", connected is not None)
        members = [site for site in all_sites(self.folder) if not site.revoked]
        yield gauge(f"{PREFIX}_sites_members", "Sites with a certificate.", len(members))
        text = "Sites that are connected now."
        yield gauge(f"{PREFIX}_sites_connected", text, len(connected or ()))
        expiries = [site.expires for site in members if site.expires is not None]
        if expiries:
            text = "When the next of the sites' certificates expires."
            yield gauge(f"{PREFIX}_site_certificate_expiry_timestamp_seconds", text, min(expiries))
        if is_loopback(self.address):
            there = {site.site: float(site.site in (connected or ())) for site in members}
            text = "Whether a site is connected."
            yield gauges(f"{PREFIX}_site_connected", text, "site", _of_some(there))

    def _certificates(self) -> "Iterator[Metric]":
        text = "When the server's certificate expires."
        try:
            certificate = read_certificate(self.folder / CA_FOLDER / SERVER_CERTIFICATE)
        except InputError:
            return
        expires = certificate.not_valid_after_utc.timestamp()
        yield gauge(f"{PREFIX}_certificate_expiry_timestamp_seconds", text, expires)


def _of_some(values: Mapping[str, float]) -> dict[str, float]:
    """Return values without the sum of those that are too many, which would say nothing here."""
    return {key: value for key, value in bounded(values).items() if key != OTHER}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()  # no round yet: it has just begun
