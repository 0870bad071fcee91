"""The process of one study: waits for its sites, runs its rounds, goes on after whatever happens.

It exits with 0 when the study has ended, with 2 or 3 when the study cannot go on (its status says
why), with 130 when it was told to stop, and with anything else when it fell: then it may be started
again, and goes on from the last commit.
"""

import functools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wardround.common.errors import WardroundError
from wardround.common.flower.logs import quieten_flower
from wardround.common.flower.surroundings import prepare_flower, without_proxies
from wardround.server.link_address import LINK_FOLDER, LinkAddress, read_address, wait_for_link
from wardround.server.offspring import end_with_parent
from wardround.server.run_folder import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WAITING,
    RunFolder,
    RunStatus,
)
from wardround.server.settings import open_server

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from wardround.common.study import Study
    from wardround.common.update import Introduction
    from wardround.server.checkpoints import Commit
    from wardround.server.collection import Node
    from wardround.server.rounds import RoundFinished

logger = logging.getLogger(__name__)
STOPPED_CODE = 130
_RESUMED_SECONDS = 600.0  # how long a run that goes on waits for a site it had
_ROLL_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Work on a run of a server folder; return the process's exit code."""
    folder, name = Path(arguments[0]).resolve(), arguments[1]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    end_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    run = RunFolder(folder, name)
    try:
        prepare_flower(folder / LINK_FOLDER)
        kept = without_proxies(os.environ)
        os.environ.clear()
        os.environ.update(kept)
        with run.taken():
            StudyProcess(folder, run).work()
    except WardroundError as error:
        _end(run, FAILED, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _end(run, STOPPED, "its process was told to stop.")
        return STOPPED_CODE
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end(run: RunFolder, state: str, message: str) -> None:
    logger.warning("%s: %s", state, message)
    status = run.status()
    if status is not None:
        run.put_status(replace(status, state=state, message=message))
    run.log(state, message=message)


class StudyProcess:
    """The work on one run, over one link after another."""

    def __init__(self, folder: Path, run: RunFolder) -> None:
        """Open a run.

        Raises:
            StudyError: Its study cannot be read.
            InputError: The server folder cannot be read.
        """
        self._folder, self._run = folder, run
        self._settings, self._study = open_server(folder).settings, run.study()
        before = run.status()
        self._status = RunStatus(
            run=run.name,
            study=self._study.name,
            digest=self._study.digest,
            rounds=self._study.federation.rounds,
            metric=self._study.metric,
        )
        if before is not None:
            self._status = replace(
                self._status, round=before.round, value=before.value, sites=before.sites
            )
        self._tell(starts=(before.starts if before else 0) + 1)
        run.log("process started", start=self._status.starts)

    def work(self) -> None:
        """Run the study to its end.

        Raises:
            WardroundError: It cannot go on.
        """
        from wardround.common.flower.serverapp import LinkLostError

        with quieten_flower(logging.WARNING):
            self._work_over_links(LinkLostError)

    def _work_over_links(self, lost: type[Exception]) -> None:
        gone: LinkAddress | None = None
        while True:
            self._wait("waiting for the link")
            address = wait_for_link(self._folder, gone, lambda: False)
            if address is None:  # pragma: no cover
                continue
            try:
                self._work_over(address)
                return
            except lost:
                self._run.log("link lost", round=self._status.round)
                gone = address if read_address(self._folder) == address else None

    def _work_over(self, address: LinkAddress) -> None:
        from wardround.common.flower.serverapp import Entrance, open_run
        from wardround.server.app import Outcome, make_server_app
        from wardround.server.gates import SECRET_HEADER

        entrance = Entrance(
            address.host_and_port,
            (SECRET_HEADER, address.secret),
            lambda: read_address(self._folder) == address,
            self._folder / LINK_FOLDER / "taking-up.lock",
        )
        outcome = Outcome()
        with open_run(entrance, self._study.to_json(), self._run.name) as (grid, context):
            context.run_config.update(
                {
                    "study": self._study.to_json(),
                    "checkpoints": str(self._run.checkpoints),
                    "durable": True,
                }
            )
            gather = functools.partial(self._gather, grid.site_names)
            make_server_app(self._heard, outcome, gather)(grid, context)
        if outcome.commit is not None:
            self._finish(outcome.commit)

    def _gather(
        self, names: Callable[[], dict[int, str]], grid: "Grid", study: "Study"
    ) -> "tuple[tuple[Node, ...], tuple[Introduction, ...]]":
        """Wait for the run's sites; those of its first start are the run's from then on."""
        from wardround.server.gathering import Gathering, Terms

        wanted = self._run.wanted_sites()
        approval = self._settings.approval_timeout_seconds
        terms = Terms(wanted, approval_timeout_seconds=approval)
        if wanted:
            terms = replace(terms, gathering_seconds=_RESUMED_SECONDS)
        if self._status.round > 0:
            terms = replace(terms, approval_timeout_seconds=_RESUMED_SECONDS)
        members = _Members(self._folder)
        gathering = Gathering(grid, names, members.active, study, terms, self._wait)
        nodes, said = gathering.gather()
        sites = tuple(node.site for node in nodes)
        if not wanted:
            self._run.put_wanted_sites(sites)
        self._tell(state=RUNNING, sites=sites, message="")
        self._run.log("sites ready", sites=list(sites))
        for site, reason in gathering.left_out().items():
            self._run.log("site left out", sites=[site], reason=reason)
        return nodes, said

    def _heard(self, finished: "RoundFinished") -> None:
        """Note a committed round."""
        value = finished.value if math.isfinite(finished.value) else None
        record = finished.record
        self._tell(state=RUNNING, round=record.round, value=value, message="")
        self._run.log(
            "round",
            round=record.round,
            seconds=round(record.seconds, 3),
            value=value,
            sites=[site.site for site in record.sites],
            refusals=[{"site": one.site, "reason": one.reason} for one in record.refusals],
        )

    def _finish(self, commit: "Commit") -> None:
        """Keep the model that the study ends with."""
        from wardround.common.parameters import digest, save_model

        facts = {"study": self._study.digest, "round": str(commit.progress.round)}
        save_model(self._run.model_path, commit.parameters, facts)
        self._tell(state=FINISHED, round=self._rounds_done(), message="")
        self._run.log("finished", kept_round=commit.progress.round, model=digest(commit.parameters))

    def _rounds_done(self) -> int:
        from wardround.server.checkpoints import CheckpointStore

        latest = CheckpointStore(self._run.checkpoints).latest()
        return self._status.round if latest is None else latest.progress.round

    def _wait(self, message: str) -> None:
        if self._status.message != message or self._status.state != WAITING:
            self._tell(state=WAITING, message=message)
            self._run.log("waiting", message=message)

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type] # names of its own
        self._run.put_status(self._status)


class _Members:
    """Who may connect, read anew now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_at, self._names = -_ROLL_SECONDS, tuple[str, ...]()

    def active(self) -> tuple[str, ...]:
        """Return the names of the members that have a valid certificate."""
        from wardround.server.membership import members

        if time.monotonic() - self._read_at >= _ROLL_SECONDS:
            now = datetime.now(UTC)
            self._names = tuple(m.site for m in members(self._folder) if m.is_active(now))
            self._read_at = time.monotonic()
        return self._names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
