"""The site's daemon: it dials out to one server and has a warm worker answer what is asked.

It never ends by itself: whatever happens to the server or the network, it tries again. Told to stop
it lets the work in hand finish for a while, gives it up otherwise, and takes its leave; an
instruction that was given up is sent again by the server.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import wardround
from wardround.client.daemon.answer_steps import AnswerSteps
from wardround.client.daemon.certificate_renewal import CertificateWatch
from wardround.client.daemon.control_socket import ControlSocket
from wardround.client.daemon.job_files import JobFiles, key_of
from wardround.client.daemon.jobs import Done, Job
from wardround.client.daemon.lock import only_daemon
from wardround.client.daemon.metrics import site_metrics_served
from wardround.client.daemon.shutdown import (
    FINISH_SECONDS,
    LEAVE_SECONDS,
    StopRequest,
    obey_signals,
)
from wardround.client.daemon.status import StatusBoard, fresh_status, work_of
from wardround.client.daemon.worker_handle import AbandonedError, WarmWorker, WithdrawnError
from wardround.client.data.source_files import mark_of, remove_outdated
from wardround.client.policy.policy import POLICY_FILE, kept_answer_days, open_policy
from wardround.client.privacy.ledger.outbox import Outbox
from wardround.client.site.credentials import load_site_tls, make_client_context
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import PolicyError, StudyError, is_full_disk
from wardround.common.flower.messages.envelope import Envelope
from wardround.common.flower.messages.message_file_writer import write_envelope
from wardround.common.flower.supernode.fleet_client import FleetLink, RunEndedError
from wardround.common.flower.supernode.supernode import SuperNode
from wardround.common.flower.supernode.transfers import LostError, StoppedError, TooLargeError
from wardround.common.runtime.printable import printable
from wardround.common.runtime.system.sockets import notify_service_manager
from wardround.common.security.tls_key_pair import read_private_key
from wardround.common.security.tls_path import INTERCEPTIONS, who_ends_tls
from wardround.common.study.loading import study_from_json

logger = logging.getLogger(__name__)
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 1.0
_HELD_SECONDS = 0.5  # a server that answers later than that has waited for something to say
_LARGEST_STUDY = 1_000_000  # bytes of JSON
_LONGEST_WORD = 64  # characters of a kind or a group that are shown
_DROP_SECONDS = 3600.0  # between two looks for answers that are too old
_KEPT_STUDIES = 8  # their JSON and digests; a server could name new ones without end


def run_site(folder: Path, server: str | None = None) -> None:
    """Serve a site folder until told to stop.

    Args:
        server: "host:port", instead of the one that the site has joined.

    Raises:
        DataError: It is no site folder.
        InputError: The site has joined no server, or a file of it cannot be used.
        RunError: Another daemon serves the folder.
    """
    site = open_site(folder)
    stop = StopRequest()
    with only_daemon(site.folder) as lock:
        open_policy(site.folder)
        tls = load_site_tls(site.folder)
        address = server or tls.address
        link = FleetLink(address, read_private_key(tls.node_key_path), make_client_context(tls))
        board = StatusBoard(fresh_status(site.name, address, wardround.__version__, os.getpid()))
        obey_signals(stop)
        control = ControlSocket(site.folder, {"status": board.to_json, "stop": _stopping(stop)})
        worker = WarmWorker((lock,), stop.is_over)
        monitor = site_metrics_served(site, board)
        try:
            notify_service_manager("READY=1")
            SiteDaemon(site, link, worker, board, stop).run()
        finally:
            notify_service_manager("STOPPING=1")
            worker.stop()
            control.close()
            monitor.close()


class SiteDaemon:
    """The loop of one site: ask, fetch, have it answered, send.

    Args:
        link: To the server.
        worker: Does the work.
    """

    def __init__(
        self,
        site: Site,
        link: FleetLink,
        worker: WarmWorker,
        board: StatusBoard,
        stop: StopRequest,
    ) -> None:
        self._site = site
        self._link = link
        self._worker = worker
        self._board = board
        self._stop = stop
        self._files = JobFiles(site.state_folder)
        self._steps = AnswerSteps(site.folder, stop)
        self._node = SuperNode(link, self._files.folder, stop.event, self._note)
        self._certificate = CertificateWatch(
            site.folder, self._connect_anew, board.trouble, link.address
        )
        self._studies: dict[int, str] = {}
        self._trouble: str | None = None  # before it has been heard of
        self._drop_at = time.monotonic()
        self._ended_by = ""  # who ends TLS in the server's place: a code of INTERCEPTIONS

    def run(self) -> None:
        """Work until told to stop."""
        idle = _SHORTEST_POLL_SECONDS
        self._certificate.start(self._stop.event)
        self._tidy()
        try:
            while not self._stop.event.is_set():
                self._board.note_worker(self._worker.process_id, self._worker.starts)
                asked, envelope = time.monotonic(), self._node.pull()
                if envelope is not None:
                    self._take(envelope)
                    idle = _SHORTEST_POLL_SECONDS
                    continue
                self._worker.revive()
                self._drop_old_answers()
                if time.monotonic() - asked < _HELD_SECONDS:
                    self._stop.event.wait(idle)
                    idle = min(idle * 1.2, _LONGEST_POLL_SECONDS)
        except (StoppedError, AbandonedError):
            logger.info("stopped before the work in hand was done: the server asks again")
        finally:
            self._node.leave()
            logger.info("left the server")

    def _tidy(self) -> None:
        """Delete what an earlier daemon left and this one would not have kept."""
        self._drop_old_answers()
        remove_outdated(self._site, mark_of(self._site))

    def _drop_old_answers(self) -> None:
        """Delete, once an hour, the answers that the policy keeps no longer."""
        if time.monotonic() < self._drop_at:
            return
        self._drop_at = time.monotonic() + _DROP_SECONDS
        days = kept_answer_days(self._site.folder)
        self._files.forget_old(days)
        Outbox(self._site.folder).drop_old(days)
        if (self._site.folder / "masking").exists():
            from wardround.client.site.idle_masks import erase_idle

            with suppress(OSError):  # the disk's trouble shows where something has to be kept
                erase_idle(self._site.folder)

    def _connect_anew(self) -> None:
        """Show the certificate that lies there now, from the next call on."""
        self._link.open(make_client_context(load_site_tls(self._site.folder)))

    def _take(self, envelope: Envelope) -> None:
        """Answer a message; whatever goes wrong on the way is the server's to know in a word."""
        try:
            self._reply(envelope)
        except (RunEndedError, WithdrawnError):
            logger.info("not answered: the server wants nothing more of this run")
            self._board.give_up("run-ended")
        except LostError:
            self._give_up(envelope, "lost", self._node.transfers.excuse)
        except (StoppedError, AbandonedError):
            raise
        except Exception as error:  # a full disk, say; its text may name a file
            code = "disk" if is_full_disk(error) else "internal"
            logger.error("not answered code=%s: %s", code, type(error).__name__)
            self._steps.wait()
            self._give_up(envelope, code, lambda one: self._node.transfers.fail(one, code))
        finally:
            self._files.drop_instruction()

    def _give_up(self, envelope: Envelope, code: str, tell: Callable[[Envelope], None]) -> None:
        self._board.give_up(code)
        try:
            tell(envelope)
        except (RunEndedError, LostError):
            return

    def _reply(self, envelope: Envelope) -> None:
        study = self._study_of(envelope.run_id)
        name, digest = _name_and_digest(study)
        kind, group = (
            printable(envelope.kind, _LONGEST_WORD),
            printable(envelope.group, _LONGEST_WORD),
        )
        self._board.begin(work_of(kind, group, name, digest))
        started, key = time.monotonic(), key_of(envelope, study, _policy_of(self._site.folder))
        job = self._job(envelope, study, key)
        self._steps.begin()
        with self._node.working_for(envelope.run_id) as is_withdrawn:
            done = self._worker.reply(job, is_withdrawn)
        if done.is_kept and not job.again:
            self._files.store_reply(key, done.run, done.round)
        self._steps.wait()
        answer = self._files.place_for(envelope.kind)
        self._node.transfers.push(answer)
        self._board.note_sent(answer.stat().st_size)
        self._finish(done, envelope.kind)
        said = kind, group, name, time.monotonic() - started
        logger.info("answered kind=%s group=%r study=%r seconds=%.1f", *said)

    def _finish(self, done: Done, kind: str) -> None:
        if not done.is_kept:
            self._files.forget_reply(kind)
        self._files.forget_counted(done.run, done.counted_round)
        if done.refused:
            logger.warning("refused code=%s", done.refused)
        self._board.end(done.refused)

    def _job(self, envelope: Envelope, study: str, key: str) -> Job:
        """Fetch what a message needs, and return what is to be done with it."""
        again = self._files.has_reply(key)
        instruction, limit = self._files.place_of(envelope.kind), 0
        refuse = "" if envelope.is_plain else "words"
        try:
            limit = open_policy(self._site.folder).largest_message_bytes
            if not again and not refuse:
                self._files.forget_reply(envelope.kind)
                self._node.transfers.fetch(envelope, instruction, limit)
        except PolicyError:
            refuse = "policy"
        except TooLargeError:
            refuse = "size"
        if again or refuse:
            write_envelope(instruction, envelope)
            self._node.transfers.confirm(envelope)
        reply = self._files.place_for(envelope.kind)
        paths = str(instruction), str(reply), str(self._site.folder)
        return Job(*paths, study, limit, refuse, again and not refuse)

    def _study_of(self, run_id: int) -> str:
        if run_id not in self._studies:
            if len(self._studies) >= _KEPT_STUDIES:
                self._studies.pop(next(iter(self._studies)))
            study = self._node.study_of(run_id)
            self._studies[run_id] = study if len(study) <= _LARGEST_STUDY else ""
        return self._studies[run_id]

    def _note(self, code: str) -> None:
        """Say once when the server is no longer reached, and when it is again."""
        if code == "server-certificate" and self._trouble not in (code, *INTERCEPTIONS):
            ended = who_ends_tls(self._link.address)
            self._ended_by = "" if ended is None else ended[0]
        if code == "server-certificate" and self._ended_by:
            code = self._ended_by
        self._board.heard(code)
        if code and code != self._trouble:
            sentence = self._link.words(code)
            logger.warning("server=%s code=%s: %s", self._link.address, code, sentence)
        elif not code and self._trouble != "":
            again = "" if self._trouble is None else " again"
            logger.info("server=%s answers%s", self._link.address, again)
        self._trouble = code


def _policy_of(folder: Path) -> bytes:
    """Return the policy as it is written now; empty where there is none, and nothing is allowed."""
    try:
        return (folder / POLICY_FILE).read_bytes()
    except OSError:
        return b""


def _name_and_digest(text: str) -> tuple[str, str]:
    try:
        study = study_from_json(text)
    except StudyError:
        return "", ""
    return study.name, study.digest


def _stopping(stop: StopRequest) -> Callable[[], dict[str, object]]:
    def reply() -> dict[str, object]:
        stop.ask()
        return {"stopping": True, "seconds": FINISH_SECONDS + LEAVE_SECONDS}

    return reply
