"""The sites of a run as its process finds them: waited for, and watched from then on."""

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flwr.serverapp import Grid

from wardround.common.errors import RunError
from wardround.common.study.study import Study
from wardround.server.identity.membership import members
from wardround.server.rounds.canary.report import Called
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.ledger_heads import ServerLedgers
from wardround.server.scheduling.queue import READY, take_turn
from wardround.server.scheduling.recorder import RunRecorder
from wardround.server.scheduling.store import note_monitoring, note_versions
from wardround.server.settings import ServerFolder
from wardround.server.sites.connected_sites import (
    BACK,
    JOINED,
    Admittance,
    ConnectedSites,
    SiteChange,
)
from wardround.server.sites.deadlines import Deadlines, limits_of
from wardround.server.sites.exchange import Node
from wardround.server.sites.participation import LateSites, Participation
from wardround.server.sites.readiness import ReadinessPoll
from wardround.server.sites.waiting import SiteWait, Terms, Turn
from wardround.server.sites.withdrawal_requests import read_repeat
from wardround.server.strategies.composed import needs_same_sites

_RESUMED_SECONDS = 600.0  # how long a run that goes on waits for a site it had
_CALLING_SECONDS = 10.0
_ROLL_SECONDS = 2.0  # a revocation is seen this soon; the database is read at each look otherwise


def wait_for_sites(
    server: ServerFolder,
    run: RunFolder,
    recorder: RunRecorder,
    names: Callable[[], dict[int, str]],
    grid: Grid,
    study: Study,
) -> Participation:
    """Wait for a run's sites; one that goes on waits for those that it had.

    Raises:
        RunError: Too few can take part, or came in time.
    """
    terms = _terms(server, run, recorder, study)
    poll, members = ReadinessPoll(grid, names, study), _MemberLookup(server.folder)
    may_begin = functools.partial(
        take_turn, server.folder, run.name, server.settings.parallel_studies
    )
    turn = Turn(may_begin, READY)
    gathered = SiteWait(poll, members.active, study, terms, recorder.wait, turn).gather()
    admittance = Admittance(terms.wanted, members.active, not needs_same_sites(study))
    deadlines = Deadlines(study.federation.deadline_seconds, limits_of(server.settings))
    ledgers = ServerLedgers(server.folder)
    _note_said(server.folder, poll)

    def note_site(change: SiteChange) -> None:
        recorder.note_site(change)
        if change.event in (JOINED, BACK):
            _note_said(server.folder, poll)

    participation = ConnectedSites(poll, admittance, deadlines, gathered, note_site, ledgers)
    recorder.begin(participation.sites, deadlines, lambda: terms.wanted or members.active())
    for site, reason in poll.refused().items():
        recorder.leave_out(site, reason)
    if study.study.repeats is None:
        return participation
    record = read_repeat(run.path)
    return participation if record is None else LateSites(participation, record.first_rounds)


def call_sites(server: ServerFolder, run: RunFolder, names: Callable[[], dict[int, str]]) -> Called:
    """Return who a canary round is for: it waits for nobody, but shortly for who just started.

    Raises:
        RunError: Nobody has joined the server.
    """
    wanted = run.wanted_sites() or _MemberLookup(server.folder).active()
    if not wanted:
        msg = "no site has joined this server: invite them with 'wardround server invite SITE'."
        raise RunError(msg)
    until = time.monotonic() + min(server.settings.gathering_seconds, _CALLING_SECONDS)
    while True:
        here = {site: node for node, site in names().items() if site in wanted}
        if len(here) == len(set(wanted)) or time.monotonic() >= until:
            break
        time.sleep(_ROLL_SECONDS / 4)
    nodes = tuple(Node(here[site], site, 0) for site in sorted(here))
    return Called(nodes, tuple(sorted({*wanted} - {*here})))


def _terms(server: ServerFolder, run: RunFolder, recorder: RunRecorder, study: Study) -> Terms:
    terms = Terms(
        wanted=run.wanted_sites(),
        expected=run.present_sites(),
        approval_timeout_seconds=server.settings.approval_timeout_seconds,
        gathering_seconds=server.settings.gathering_seconds,
    )
    if terms.expected:
        terms = replace(terms, gathering_seconds=_RESUMED_SECONDS)
    if study.study.repeats is not None and not terms.expected:
        # Who approves it later was in the rounds that are repeated: without them it is another run.
        terms = replace(terms, gathering_seconds=terms.approval_timeout_seconds)
    elif recorder.rounds_done > 0:
        terms = replace(terms, approval_timeout_seconds=_RESUMED_SECONDS)
    return terms


class _MemberLookup:
    """Who may connect, read anew now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_at, self._names = -_ROLL_SECONDS, tuple[str, ...]()

    def active(self) -> tuple[str, ...]:
        """Return the names of the members that have a valid certificate."""
        if time.monotonic() - self._read_at >= _ROLL_SECONDS:
            now = datetime.now(UTC)
            self._names = tuple(m.site for m in members(self._folder) if m.is_active(now))
            self._read_at = time.monotonic()
        return self._names


def _note_said(folder: Path, poll: ReadinessPoll) -> None:
    """Note which versions sites run, and what they said of the monitoring of a model there."""
    note_versions(folder, poll.versions())
    if words := poll.monitoring():
        note_monitoring(folder, words)
