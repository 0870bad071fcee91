"""The process of one study: waits for its sites, runs its rounds, goes on after whatever happens.

It exits with 0 when the study has ended, with 2 or 3 when the study cannot go on (its status says
why), with 130 when it was told to stop, and with anything else when it fell: then it may be started
again, and goes on from the last commit.
"""

import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import WardroundError
from wardround.common.flower.environment import prepare_flower, without_proxies
from wardround.common.flower.logs import quieten_flower
from wardround.common.runtime.system.processes import end_with_parent
from wardround.common.runtime.system.signals import interrupted_when_terminated, is_ctrl_c
from wardround.server.checkpoints.canary import is_canary
from wardround.server.link.address import LINK_FOLDER, LinkAddress, read_address, wait_for_link
from wardround.server.scheduling.folder import FAILED, STOPPED, RunFolder
from wardround.server.scheduling.queue import StudyQueue
from wardround.server.scheduling.recorder import RunRecorder
from wardround.server.scheduling.store import STOP
from wardround.server.settings import open_server

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from wardround.common.flower.site_grid import SiteGrid
    from wardround.server.app import Wrap
    from wardround.server.checkpoints.store import Commit
    from wardround.server.planning.collection import Collected
    from wardround.server.rounds.loop import Listener

logger = logging.getLogger(__name__)
_LOST_SECONDS = 1.0  # before a link that did not know the run is asked again
STOPPED_CODE = 130  # 128 + SIGINT, as shells count


def main(arguments: list[str]) -> int:
    """Work on a run of a server folder; return the process's exit code."""
    folder, name = Path(arguments[0]).resolve(), arguments[1]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    end_with_parent()
    interrupted_when_terminated()
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
    except BaseException as error:
        if not is_ctrl_c(error):
            raise
        _end(run, STOPPED, "its process was told to stop.")
        return STOPPED_CODE
    return 0


def _end(run: RunFolder, state: str, message: str) -> None:
    logger.warning("%s: %s", state, message)
    status = run.status()
    if status is not None:
        run.put_status(replace(status, state=state, message=message))
    run.log(state, message=message)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds of a run go through.

    Attributes:
        note: Is told of each that was committed.
        wrap: Puts something around the strategy.
        close: Is called after the last one.
    """

    grid: "SiteGrid"
    note: "Listener"
    wrap: "Wrap | None" = None
    close: Callable[[], None] = lambda: None


class StudyProcess:
    """The work on one run, over one link after another."""

    def __init__(self, folder: Path, run: RunFolder) -> None:
        """Open a run.

        Raises:
            StudyError: Its study cannot be read.
            InputError: The server folder cannot be read.
        """
        self._server, self._run, self._study = open_server(folder), run, run.study()
        self._recorder = RunRecorder(run, self._study)

    def work(self) -> None:
        """Run the study to its end.

        Raises:
            WardroundError: It cannot go on.
        """
        from wardround.common.flower.serverapp.grid import LinkLostError

        with quieten_flower(logging.WARNING):
            self._work_over_links(LinkLostError)

    def _work_over_links(self, lost: type[Exception]) -> None:
        folder = self._server.folder
        while True:
            self._recorder.wait("waiting for the link")
            address = wait_for_link(folder, None, lambda: False)
            if address is None:  # pragma: no cover # only where somebody asks it to stop
                continue
            try:
                self._work_over(address)
                return
            except lost:
                # Another link, or the same one: a clock that jumped makes it forget its studies.
                self._recorder.lose_link()
                time.sleep(_LOST_SECONDS)

    def _work_over(self, address: LinkAddress) -> None:
        from wardround.common.flower.serverapp.grid import Entrance, open_run
        from wardround.common.security.peers import read_peers
        from wardround.server.app import Outcome, make_server_app
        from wardround.server.identity.lineage_key import open_lineage_key
        from wardround.server.link.gates import SECRET_HEADER
        from wardround.server.scheduling.audit_heads import ReceiptedGrid, ReceiptOffice
        from wardround.server.scheduling.run_sites import wait_for_sites

        folder, recorder = self._server.folder, self._recorder
        entrance = Entrance(
            address.host_and_port,
            (SECRET_HEADER, address.secret),
            lambda: read_address(folder) == address,
            folder / LINK_FOLDER / "taking-up.lock",
        )
        outcome = Outcome()
        opened = open_run(
            entrance, self._study.to_json(), self._run.name, self._is_stopped_by_operator
        )
        with opened as (grid, context):
            context.run_config.update(
                {
                    "study": self._study.to_json(),
                    "checkpoints": str(self._run.checkpoints),
                    "durable": True,
                }
            )
            office = ReceiptOffice(folder, self._run.name)
            if is_canary(self._run.path):
                self._try_round(ReceiptedGrid(grid, office), grid.site_names)
                office.keep()
                return
            gather = functools.partial(
                wait_for_sites, self._server, self._run, recorder, grid.site_names
            )
            rounds = self._rounds(ReceiptedGrid(grid, office), grid.site_names)
            try:
                key = open_lineage_key(folder)
                peers = read_peers(folder) if self._study.federation.secure_aggregation else {}
                server_app = make_server_app(rounds.note, outcome, gather, key, rounds.wrap, peers)
                server_app(rounds.grid, context)
            finally:
                rounds.close()
                office.keep()
        if outcome.commit is not None:
            self._finish(outcome.commit)
        if outcome.statistics is not None:
            self._finish_planning(outcome.statistics)

    def _try_round(self, grid: "Grid", names: Callable[[], dict[int, str]]) -> None:
        """Go through a canary round with whoever is connected, and keep what it found."""
        from wardround.server.checkpoints.canary import write_canary
        from wardround.server.rounds.canary.report import try_round
        from wardround.server.scheduling.run_sites import call_sites
        from wardround.server.sites.deadlines import Deadlines, limits_of

        seconds = self._study.federation.deadline_seconds
        deadlines = Deadlines(seconds, limits_of(self._server.settings))
        called = call_sites(self._server, self._run, names)
        self._recorder.begin_canary(tuple(node.site for node in called.nodes))
        report = try_round(grid, self._study, called, deadlines, self._run.path)
        write_canary(self._run.path, report)
        self._recorder.finish_canary(report)

    def _rounds(self, grid: "SiteGrid", names: "Callable[[], Mapping[int, str]]") -> "Rounds":
        """Return the way that rounds take: over the grid, past OpenTelemetry if that is wanted."""
        rounds = Rounds(grid, self._recorder.note_round)
        if endpoint := self._server.settings.traces:
            from wardround.server.scheduling.round_trace import traced

            return traced(rounds, endpoint, self._run.name, names)
        return rounds

    def _is_stopped_by_operator(self) -> bool:
        """Return whether the run is to stop; else its server ends, and goes on with it later."""
        with suppress(WardroundError):
            return StudyQueue(self._server.folder).wanted_state(self._run.name) == STOP
        return False

    def _finish(self, commit: "Commit") -> None:
        """Keep the model that the study ends with."""
        from wardround.common.parameters.arithmetic import digest
        from wardround.common.parameters.model_file import LINEAGE, save_model
        from wardround.server.rounds.lineage import lineage_of

        kept = commit.progress.round
        facts = {"study": self._study.digest, "round": str(kept)}
        if lineage := lineage_of(self._run.checkpoints, kept):
            facts[LINEAGE] = lineage
        save_model(self._run.model_path, commit.parameters, facts)
        if self._study.study.repeats is not None:
            from wardround.server.scheduling.repeat import certify

            certify(self._server.folder, self._run, self._study, commit)
        self._recorder.finish(self._rounds_done(), kept, digest(commit.parameters))

    def _finish_planning(self, collected: "Collected") -> None:
        """Keep what the sites answered to a study that asks for statistics, in place of a model."""
        from wardround.common.parameters.arithmetic import digest
        from wardround.common.parameters.model_file import save_model
        from wardround.server.planning.collection import as_parameters

        kept = as_parameters(collected)
        save_model(self._run.model_path, kept, {"study": self._study.digest, "round": "0"})
        for site, reason in collected.refused.items():
            self._recorder.leave_out(site, reason)
        self._recorder.finish(0, 0, digest(kept))

    def _rounds_done(self) -> int:
        from wardround.server.checkpoints.store import CheckpointStore

        latest = CheckpointStore(self._run.checkpoints).latest()
        return self._recorder.rounds_done if latest is None else latest.progress.round


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
