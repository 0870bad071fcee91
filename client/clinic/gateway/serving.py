"""The loop of ``wardround site serve``: find, answer, wait; and what is done where that fails."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.gateway.answer import (
    Desk,
    RefusedError,
    answer,
    require_servable,
)
from wardround.client.clinic.gateway.finding import (
    find_in_archive,
    find_received,
    remove_answered,
)
from wardround.client.clinic.gateway.incoming import IncomingFolder
from wardround.client.clinic.gateway.queue import DONE, REFUSED, Work, WorkQueue
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.pacs.archive import Archive, PacsAwayError, PacsError, open_archive
from wardround.client.clinic.pacs.receiver import receiving
from wardround.client.clinic.pacs.results.fhir import import_fhir
from wardround.client.clinic.pacs.results.segmentation import import_highdicom
from wardround.client.clinic.pacs.settings import PacsFile, read_pacs_file
from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import require_packages
from wardround.client.site.folder import open_site
from wardround.common.errors import (
    RunError,
    WardroundError,
    describe_defect,
    is_full_disk,
)
from wardround.common.files.atomic import make_private_folder
from wardround.common.files.lock import held_alone
from wardround.common.models.model_folder import open_model_folder
from wardround.common.runtime.system.signals import obeyed_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

logger = logging.getLogger(__name__)
GATEWAY_FOLDER = "gateway"
QUEUE_FILE, LOCK_FILE = "queue.sqlite", "serve.lock"
TROUBLE, MODEL, NO_TROUBLE = "trouble", "model", ""
_FINISH_SECONDS = 20.0  # for the study in hand, once told to stop
_LONGEST_WAIT_SECONDS = 300.0  # between two tries while the archive is away
_LOOK_SECONDS = 1.0  # between two looks at what was sent
_DIGITS = 12  # of a digest


def gateway_folder(site: Path) -> Path:
    """Return where a site's gateway keeps what it keeps."""
    return open_site(site).state_folder / GATEWAY_FOLDER


def serve(
    site: Path,
    model: Path,
    key: "Ed25519PublicKey | None" = None,
    device: str = "auto",
    once: bool = False,
) -> None:
    """Answer the studies of an archive with a model until told to stop.

    Args:
        model: A model folder.
        key: A public key that must have signed it; None takes any.
        once: End when nothing is left to answer now; what was refused or given up stays so.

    Raises:
        InputError: The settings, the model or the packages cannot be used.
        PolicyError: The model needs a package that the policy does not list.
        RunError: Another gateway serves this site folder; or with ``once``, the archive is away.
    """
    folder = gateway_folder(site)
    settings = read_pacs_file(site)
    archive = open_archive(site)
    import_highdicom()  # what is not installed is said before a study is begun
    if settings.serve.fhir:
        import_fhir()
    make_private_folder(folder)
    busy = RunError(
        f"another 'wardround site serve' works on {site}: look with 'wardround site serve {site} "
        "--status', and end that one first."
    )
    asked = open_model_folder(model, key).study
    if asked.packages:  # before a line of their code is imported
        require_packages(open_policy(site), asked)
    with held_alone(folder / LOCK_FILE, busy):
        watched = settings.serve.monitor
        predictor = load_predictor(model, device, key=key, uncertainty=watched)
        require_servable(predictor.study)
        watch = None
        if watched:
            # Here and not above: a gateway that is not watched does without.
            from wardround.client.clinic.monitoring.serving import watch_gateway

            watch = watch_gateway(site, predictor)
        queue = WorkQueue(folder / QUEUE_FILE)
        try:
            incoming = None
            if settings.serve.receive:
                incoming = IncomingFolder(folder / "incoming", settings.limits)
            results = folder / "results" if settings.serve.fhir else None
            desk = Desk(archive, predictor, incoming, folder / "spool", results, watch)
            queue.note(MODEL, f"{predictor.contract.name} {predictor.digest[:_DIGITS]}")
            with _receiver(site, settings, incoming):
                _Loop(queue, desk, settings, once).run()
        finally:
            queue.close()


@contextmanager
def _receiver(site: Path, settings: PacsFile, incoming: IncomingFolder | None) -> Iterator[None]:
    if incoming is None or settings.receiver is None:
        with nullcontext():
            yield
        return
    with receiving(site, settings.receiver, settings.limits, incoming.take) as port:
        logger.info("images may be sent to %s at port %d", settings.receiver.title, port)
        yield


class _Loop:
    def __init__(self, queue: WorkQueue, desk: Desk, settings: PacsFile, once: bool) -> None:
        self._queue, self._desk, self._rules, self._once = queue, desk, settings.serve, once
        self._stop = threading.Event()
        self._next_poll = self._next_look = 0.0
        self._wait = self._rules.retry_seconds  # while the archive is away

    @property
    def _archive(self) -> Archive:
        return self._desk.archive

    @property
    def _model(self) -> str:
        return self._desk.predictor.digest

    def run(self) -> None:
        """Work until told to stop."""
        if not self._once:
            _obey_signals(self._stop)
        logger.info("serving %s", self._archive.name)
        while not self._stop.is_set():
            try:
                self._find()
                work = self._queue.next(self._model)
                if work is not None:
                    self._handle(work)
                elif self._once and self._is_finished():
                    return
                else:
                    self._stop.wait(self._pause())
                    continue
            except PacsAwayError as error:
                if self._once:
                    raise
                self._wait_for_archive(str(error))
        logger.info("stopped")

    def _find(self) -> None:
        now = time.monotonic()
        if self._desk.incoming is not None and now >= self._next_look:
            find_received(self._desk.incoming, self._queue, self._rules, self._model)
            self._next_look = now + _LOOK_SECONDS
        polls = self._rules.poll_seconds > 0 or self._once
        if polls and now >= self._next_poll:
            try:
                find_in_archive(self._archive, self._queue, self._rules, self._model)
            except PacsAwayError:
                raise
            except PacsError as error:  # refuses: a password may be changed meanwhile
                if self._once:
                    raise
                raise PacsAwayError(str(error)) from None
            self._queue.note(TROUBLE, NO_TROUBLE)
            self._wait = self._rules.retry_seconds
            wait = self._rules.poll_seconds
            if self._once:
                wait = min(wait, max(self._rules.settle_seconds / 4, 0.1))
            self._next_poll = time.monotonic() + wait

    def _handle(self, work: Work) -> None:
        """Answer one entry, and write down how that went."""
        if not self._queue.begin(work):
            logger.warning("a study was given up: the process ended too often while at it")
            return
        try:
            new = answer(work, self._desk)
        except RefusedError as error:
            self._end(work, REFUSED, str(error))
        except PacsAwayError as error:
            self._archive_failed(work, error)
        except Exception as error:  # a study that nobody foresaw must not stop all others
            if is_full_disk(error):
                self._queue.put_back(work, "")
                msg = "The disk is full."
                raise PacsAwayError(msg) from None
            self._fail(work, _reason(error))
        else:
            self._end(work, DONE, "")
            logger.info("a study was answered" if new else "a study had its answer already")

    def _archive_failed(self, work: Work, error: PacsAwayError) -> None:
        """Tell an archive that is away from one that cannot give this study."""
        try:
            self._archive.ping()
        except PacsError as away:
            self._queue.put_back(work, "")
            raise PacsAwayError(str(away)) from None
        self._fail(work, str(error))

    def _fail(self, work: Work, reason: str) -> None:
        self._queue.fail(work, reason, self._rules.most_errors, self._rules.retry_seconds)
        logger.warning("a study failed for the %d. time: %s", work.errors + 1, reason)

    def _end(self, work: Work, state: str, reason: str) -> None:
        self._queue.end(work, state, reason)
        if self._desk.incoming is not None:
            remove_answered(self._desk.incoming, work)
        if reason:
            logger.warning("a study was %s: %s", state, reason)

    def _wait_for_archive(self, reason: str) -> None:
        self._queue.note(TROUBLE, reason)
        logger.warning("%s Trying again in %.0f s.", reason, self._wait)
        self._stop.wait(self._wait)
        self._wait = min(2 * self._wait, _LONGEST_WAIT_SECONDS)

    def _is_finished(self) -> bool:
        waiting = self._queue.seconds_to_next(self._model)
        nothing_sent = self._desk.incoming is None or self._desk.incoming.is_empty()
        return (
            waiting is None
            and nothing_sent
            and not self._queue.is_unsettled(self._model, self._rules.settle_seconds)
        )

    def _pause(self) -> float:
        """Return how long nothing is to be done."""
        now = time.monotonic()
        times = [self._queue.seconds_to_next(self._model)]
        if self._rules.poll_seconds > 0 or self._once:
            times.append(self._next_poll - now)
        if self._desk.incoming is not None:
            times.append(self._next_look - now)
        return max(0.02, min((one for one in times if one is not None), default=_LOOK_SECONDS))


def _reason(error: Exception) -> str:
    """Return why a study failed, without a text that may name a patient's file."""
    if isinstance(error, WardroundError):
        return str(error)
    if isinstance(error, OSError):
        return f"a file cannot be read or written ({error.strerror})"
    if isinstance(error, MemoryError):
        return "the machine has too little memory for this study"
    return describe_defect(error)


def _obey_signals(stop: threading.Event) -> None:
    """End when signalled: after the study in hand at first, at once the second time.

    Even at once nothing is lost: whatever was begun is done again.
    """

    def ask() -> None:
        stop.set()
        threading.Thread(target=_end_in_time, daemon=True).start()

    obeyed_once(ask)


def _end_in_time() -> None:
    time.sleep(_FINISH_SECONDS)
    os._exit(0)
