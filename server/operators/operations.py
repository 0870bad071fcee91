"""What an operator can do with a server, apart from how the question comes in."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import wardround
from wardround.common.errors import InputError
from wardround.common.security.tls_key_pair import read_certificate
from wardround.server.identity.pki import CA_FOLDER
from wardround.server.identity.server_certificate import SERVER_CERTIFICATE
from wardround.server.operators.connected_sites import (
    Presence,
    connected_sites,
    look_who_is_there,
)
from wardround.server.operators.messages import (
    AboutRun,
    ModelPart,
    Nothing,
    RunDetails,
    RunEvent,
    RunRecord,
    Runs,
    RunSummary,
    ServerSummary,
    Sites,
    SiteSummary,
    Submission,
    Submitted,
    WithdrawalAsked,
    WithdrawalPlanned,
    Withdrawals,
)
from wardround.server.operators.run_events import watch_run
from wardround.server.operators.run_model import model_parts
from wardround.server.operators.run_summaries import describe, record_of, summarise
from wardround.server.scheduling.leaving import Question, answer_aside, waiting
from wardround.server.scheduling.queue import resume_run, stop_run
from wardround.server.scheduling.store import (
    QUEUED,
    RUNNING,
    RunRow,
    SiteRow,
    all_runs,
    all_sites,
    find_run,
)
from wardround.server.scheduling.submission import read_study, submit_study
from wardround.server.settings import open_server

Wait = Callable[[float], bool]
_LOST_SECONDS = 2.0  # a proxy that closes a connection, and a site that opens the next one


class Operations:
    """Answers operators' questions about one server folder; several threads may ask.

    A method raises :class:`InputError` for what cannot be done as it was asked, and
    :class:`RunError` where database or disk cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, time.time()
        self._ended: dict[RunRow, RunSummary] = {}  # their files change no more while their row is

    def submit(self, submission: Submission) -> Submitted:
        """Check a study and put it in the queue."""
        study = read_study(submission.text, submission.form)
        row = submit_study(self._folder, study, submission.sites, submission.canary)
        waiting = [one for one in all_runs(self._folder) if one.state in (QUEUED, RUNNING)]
        ahead = sum(one.state == RUNNING or one.place < row.place for one in waiting)
        return Submitted(row.run, row.study, row.digest, ahead)

    def runs(self, _: Nothing) -> Runs:
        """Return all runs."""
        return Runs(tuple(self._summary(row) for row in all_runs(self._folder)))

    def _summary(self, row: RunRow) -> RunSummary:
        known = self._ended.get(row)
        if known is None:
            known = summarise(self._folder, row)
            if row.is_over:
                self._ended[row] = known
        return known

    def show(self, about: AboutRun) -> RunDetails:
        """Return all that is known of a run."""
        return describe(self._folder, find_run(self._folder, about.run))

    def record(self, about: AboutRun) -> RunRecord:
        """Return what a report of a run is made of."""
        return record_of(self._folder, find_run(self._folder, about.run))

    def model(self, about: AboutRun) -> Iterator[ModelPart]:
        """Yield the file of the model that a finished run keeps, in parts."""
        return model_parts(self._folder, find_run(self._folder, about.run))

    def watch(self, about: AboutRun, wait: Wait) -> Iterator[RunEvent]:
        """Yield what has happened and what happens in a run, until it is over."""
        return watch_run(self._folder, about.run, wait)

    def stop(self, about: AboutRun) -> RunSummary:
        """Want a run to stop."""
        return summarise(self._folder, stop_run(self._folder, about.run))

    def resume(self, about: AboutRun) -> RunSummary:
        """Queue a run again that was stopped or failed."""
        return summarise(self._folder, resume_run(self._folder, about.run))

    def withdrawals(self, _: Nothing) -> Withdrawals:
        """Return what sites asked to leave and no operator has begun yet."""
        return waiting(self._folder)

    def plan_withdrawal(self, asked: WithdrawalAsked) -> WithdrawalPlanned:
        """Return what a run without a site would repeat."""
        return answer_aside(self._folder, Question("plan", asked))

    def begin_withdrawal(self, asked: WithdrawalAsked) -> WithdrawalPlanned:
        """Revoke a run's model and queue its repeat without a site."""
        return answer_aside(self._folder, Question("begin", asked))

    def sites(self, _: Nothing) -> Sites:
        """Return all sites of the consortium."""
        presence = look_who_is_there(self._folder) or Presence(frozenset(), {})
        return Sites(tuple(_site(row, presence) for row in all_sites(self._folder)))

    def server(self, _: Nothing) -> ServerSummary:
        """Return how the server stands."""
        settings, connected = open_server(self._folder).settings, connected_sites(self._folder)
        return ServerSummary(
            name=settings.name,
            version=wardround.__version__,
            address=settings.address,
            started=self._started,
            link_is_up=connected is not None,
            sites=len(all_sites(self._folder)),
            connected=len(connected or ()),
            runs=dict(Counter(row.state for row in all_runs(self._folder))),
            certificate_expires=_expiry(self._folder),
        )


def _site(row: SiteRow, presence: Presence) -> SiteSummary:
    now, left = time.time(), presence.left.get(row.site)
    is_connected = row.site in presence.connected
    is_lost = is_connected and left is not None and now - left >= _LOST_SECONDS
    return SiteSummary(
        site=row.site,
        joined=row.joined,
        expires=row.expires,
        revoked=row.revoked,
        seen=(left if is_lost else now) if is_connected else row.seen,
        connected=is_connected,
        lost=left if is_lost else None,
        wardround=row.wardround,
        monitoring=row.monitoring,
        monitored=row.monitored,
    )


def _expiry(folder: Path) -> float | None:
    try:
        certificate = read_certificate(folder / CA_FOLDER / SERVER_CERTIFICATE)
    except InputError:
        return None
    return certificate.not_valid_after_utc.timestamp()
