"""What the process of a study writes down of it: how it stands now, and what happened."""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from wardround.common.study.study import Study
from wardround.server.checkpoints.canary import FAILS, CanaryReport
from wardround.server.checkpoints.lost_sites import TRAINING
from wardround.server.checkpoints.release import Release, write_release
from wardround.server.scheduling.folder import FINISHED, RUNNING, WAITING, RunFolder, RunStatus

if TYPE_CHECKING:
    from wardround.server.rounds.loop import RoundFinished
    from wardround.server.sites.connected_sites import SiteChange
    from wardround.server.sites.deadlines import Deadlines

_WORTH_TELLING = 1.5  # how much longer or shorter a deadline gets before that is an event


class RunRecorder:
    """The status and the log of one run, kept by its process."""

    def __init__(self, run: RunFolder, study: Study) -> None:
        """Note that the process has started."""
        self._run = run
        before = run.status()
        self._status = RunStatus(
            run=run.name,
            study=study.name,
            digest=study.digest,
            rounds=study.federation.rounds,
            metric=study.metric,
        )
        if before is not None:
            self._status = replace(
                self._status,
                round=before.round,
                value=before.value,
                sites=before.sites,
                took_part=before.took_part,
                without=before.without,
                missed=before.missed,
            )
        self._wanted: Callable[[], Collection[str]] | None = None
        self._deadlines: Deadlines | None = None
        self._told_seconds: float | None = None
        self._tell(starts=(before.starts if before else 0) + 1)
        run.log("process started", start=self._status.starts)

    @property
    def rounds_done(self) -> int:
        """Rounds committed."""
        return self._status.round

    def wait(self, message: str) -> None:
        """Note what the run waits for."""
        if self._status.message != message or self._status.state != WAITING:
            self._tell(state=WAITING, message=message)
            self._run.log("waiting", message=message)

    def begin(
        self,
        sites: tuple[str, ...],
        deadlines: "Deadlines",
        wanted: Callable[[], Collection[str]],
    ) -> None:
        """Note who takes part from now on, and how long they are waited for.

        Args:
            wanted: Gives the sites that the run is for.
        """
        self._deadlines, self._wanted = deadlines, wanted
        self._run.put_present_sites(sites)
        self._tell(state=RUNNING, sites=sites, message="")
        self._run.log("sites ready", sites=list(sites))
        self._note_deadlines()

    def leave_out(self, site: str, reason: str) -> None:
        """Note a site that cannot take part."""
        self._run.log("site left out", sites=[site], reason=reason)

    def note_site(self, change: "SiteChange") -> None:
        """Note that a site has come, has gone, or is back, or keeps a round waiting."""
        if change.is_passing:
            self._tell(message=change.reason)
            return
        self._run.put_present_sites(change.present)
        self._tell(sites=change.sites)
        self._run.log(change.event, sites=[change.site], reason=change.reason)

    def note_round(self, finished: "RoundFinished") -> None:
        """Note a committed round."""
        value = finished.value if math.isfinite(finished.value) else None
        record = finished.record
        took_part = {*self._status.took_part, *(site.site for site in record.sites)}
        missed = Counter(self._status.missed)
        missed.update({one.site for one in record.refusals if one.asked == TRAINING})
        self._status = replace(
            self._status, took_part=tuple(sorted(took_part)), missed=dict(sorted(missed.items()))
        )
        self._tell(
            state=RUNNING, round=record.round, value=value, message="", without=self._without()
        )
        self._run.log(
            "round",
            round=record.round,
            seconds=round(record.seconds, 3),
            value=value,
            sites=[site.site for site in record.sites],
            refusals=[{"site": one.site, "reason": one.reason} for one in record.refusals],
        )
        self._note_deadlines()

    def lose_link(self) -> None:
        """Note that the connection to the sites' link was lost."""
        self._run.log("link lost", round=self._status.round)

    def finish(self, rounds: int, kept_round: int, model: str) -> None:
        """Note that the study has ended, and with which model.

        Args:
            model: Its digest.
        """
        self._tell(state=FINISHED, round=rounds, message="", without=self._without())
        self._run.log("finished", kept_round=kept_round, model=model)
        status = self._status
        release = Release(
            status.run, status.digest, model, kept_round, status.took_part, time.time()
        )
        write_release(self._run.path, release)

    def begin_canary(self, sites: tuple[str, ...]) -> None:
        """Note that a canary round goes through these sites."""
        self._tell(state=RUNNING, sites=sites, rounds=0, message="")
        self._run.log("canary begun", sites=list(sites))

    def finish_canary(self, report: CanaryReport) -> None:
        """Note how a canary round ended: no model is kept or released."""
        failing = sorted({row.site for row in report.rows if row.state == FAILS})
        said = f"would fail: {', '.join(failing)}" if failing else "nothing would fail"
        self._tell(state=FINISHED, message=said)
        self._run.log("canary", reason=said)

    def _without(self) -> tuple[str, ...]:
        """Return the sites that the run is for and that have taken part in no round."""
        if self._wanted is None:  # its last round was committed before its process fell
            return self._status.without
        return tuple(sorted({*self._wanted()} - {*self._status.took_part}))

    def _note_deadlines(self) -> None:
        """Tell how long a round waits when that is new, or has become quite another time."""
        if self._deadlines is None:
            return
        self._tell(deadlines=self._deadlines.words())
        before, now = self._told_seconds, self._deadlines.deadline_seconds
        if now is None or (before and 1 / _WORTH_TELLING < now / before < _WORTH_TELLING):
            return
        self._told_seconds = now
        self._run.log("deadline", reason=self._deadlines.words(), seconds=now)

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type] # names of its own
        self._run.put_status(self._status)
