"""The site folder as the page reads it: again and again, and each file only when it has changed."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from wardround.client.daemon.control_socket import ask_daemon
from wardround.client.daemon.status import DaemonStatus
from wardround.client.doctor.doctor import faults_at_hand
from wardround.client.page.errands import Errands
from wardround.client.page.policy_words import policy_words
from wardround.client.page.site_view import (
    Account,
    AuditView,
    BudgetView,
    Decided,
    Leaving,
    Model,
    SiteView,
    Waiting,
)
from wardround.client.policy.approvals import (
    APPROVALS_FILE,
    PENDING_FOLDER,
    pending_studies,
    read_decisions,
)
from wardround.client.policy.policy import NO_LIMIT, open_policy
from wardround.client.privacy.ledger.file import LEDGER_FILE, find_ledger_folder
from wardround.client.site.folder import AUDIT_FOLDER, KEY_FOLDER, open_site
from wardround.common.errors import WardroundError
from wardround.common.runtime.system import accounts
from wardround.common.security.audit_log import LOG_FILE
from wardround.common.security.audit_verification import Entry, read_log

Found = TypeVar("Found")
ERRAND_NAMES = ("explain", "approve", "reject", "check", "doctor")
MOST_LEAVING = 50
_MOST_DECIDED = 20
_MOST_MODELS = 50
_FAULT_SECONDS = 30.0  # between two looks at disk, certificate and rights
_REST = 20.0  # a check of the whole log rests so many times as long as it took
_LARGEST_CONTRACT = 10_000_000


class Remembered(Generic[Found]):
    """What was found in files, until one of them changes or some time has passed."""

    def __init__(self, find: Callable[[], Found], longest_seconds: float | None = None) -> None:
        self._find = find
        self._longest = longest_seconds
        self._mark: object = None
        self._found_at = 0.0
        self._found: Found | None = None

    def get(self, *paths: Path) -> Found:
        """Return what is found, looking anew if need be."""
        mark, now = [_mark_of(path) for path in paths], time.monotonic()
        is_old = self._longest is not None and now > self._found_at + self._longest
        if self._found is None or mark != self._mark or is_old:
            self._found, self._mark, self._found_at = self._find(), mark, now
        return self._found


class SiteReader:
    """Looks at one site folder; what takes long is found beside, and shown when it is there."""

    def __init__(self, folder: Path, errands: Errands, may_decide: bool) -> None:
        self._folder = folder
        self._errands = errands
        self._may_decide = may_decide
        self._faults = Remembered(self._find_faults, _FAULT_SECONDS)
        self._waiting = Remembered(self._find_waiting)
        self._decided = Remembered(self._find_decided)
        self._audit = Remembered(self._find_audit)
        self._budget = Remembered(self._find_budget)
        self._models = Remembered(self._find_models)
        self._verified, self._is_broken = "", False
        self._verified_mark: object = None
        self._verify_at = 0.0
        self._verifying: threading.Thread | None = None

    def look(self) -> SiteView:
        """Return what is known now.

        Raises:
            DataError: It is no site folder any more.
        """
        site, folder = open_site(self._folder), self._folder
        daemon, no_daemon = self._ask_daemon()
        waiting, waiting_trouble = self._waiting.get(folder / "state" / PENDING_FOLDER)
        ledger = find_ledger_folder(folder) / LEDGER_FILE
        return SiteView(
            site=site.name,
            server="" if site.settings.server is None else site.settings.server.address,
            typed=str(folder),
            account=_account(),
            may_decide=self._may_decide,
            daemon=daemon,
            no_daemon=no_daemon,
            faults=self._faults.get(),
            waiting=waiting,
            waiting_trouble=waiting_trouble,
            decided=self._decided.get(folder / APPROVALS_FILE),
            audit=self._look_at_audit(),
            budget=self._budget.get(ledger),
            policy=self._find_policy(),
            models=self._models.get(folder / "models"),
            errands={
                name: errand
                for name in ERRAND_NAMES
                if (errand := self._errands.last(name)) is not None
            },
        )

    def _ask_daemon(self) -> tuple[DaemonStatus | None, str]:
        try:
            return DaemonStatus.from_json(ask_daemon(self._folder, "status")), ""
        except WardroundError as error:
            return None, str(error)
        except (TypeError, KeyError):
            return None, "the daemon is of another version: start it anew."

    def _find_faults(self) -> tuple[tuple[str, str, str], ...]:
        return tuple((one.name, one.fact, one.remedy) for one in faults_at_hand(self._folder))

    def _find_waiting(self) -> tuple[tuple[Waiting, ...], str]:
        try:
            found = pending_studies(self._folder)
        except WardroundError as error:
            return (), str(error)
        except OSError:  # one was decided on in this moment
            return (), ""
        return tuple(
            Waiting(
                one.study.digest,
                one.study.name,
                one.study.study.description or "no description given",
                one.since,
            )
            for one in found
        ), ""

    def _find_decided(self) -> tuple[Decided, ...]:
        try:
            decisions = read_decisions(self._folder)
        except WardroundError:  # the doctor's checks say it
            return ()
        return tuple(
            Decided(one.digest, one.study, one.verdict, one.account, one.date, one.rounds)
            for one in reversed(decisions[-_MOST_DECIDED:])
        )

    def _look_at_audit(self) -> AuditView:
        path = self._folder / AUDIT_FOLDER / LOG_FILE
        self._verify_anew(path)
        found, words, is_broken = self._audit.get(path), self._verified, self._is_broken
        return AuditView(
            found.entries,
            found.last,
            found.answers,
            found.refusals,
            found.bytes,
            words,
            is_broken,
            found.trouble,
        )

    def _find_audit(self) -> AuditView:
        try:
            entries = list(read_log(self._folder / AUDIT_FOLDER))
        except WardroundError as error:
            return AuditView(trouble=str(error))
        except OSError as error:
            return AuditView(trouble=f"the audit log cannot be read ({error.strerror}).")
        left = [one for one in entries if one.event.verdict == "allow" and one.event.bytes]
        return AuditView(
            entries=len(entries),
            last=tuple(_leaving(one) for one in entries[: -MOST_LEAVING - 1 : -1]),
            answers=len(left),
            # What was imported or corrected is allowed too, with its counts behind a colon.
            refusals=sum(one.event.verdict.partition(":")[0] != "allow" for one in entries),
            bytes=sum(one.event.bytes for one in left),
        )

    def _verify_anew(self, path: Path) -> None:
        """Check the whole chain beside, where it has changed and the last check is long ago."""
        mark, now = _mark_of(path), time.monotonic()
        is_busy = self._verifying is not None and self._verifying.is_alive()
        if is_busy or mark == self._verified_mark or now < self._verify_at:
            return
        self._verified_mark = mark
        self._verifying = threading.Thread(target=self._verify, daemon=True)
        self._verifying.start()

    def _verify(self) -> None:
        began = time.monotonic()
        self._verified, self._is_broken = verify_words(self._folder)
        self._verify_at = time.monotonic() + _REST * (time.monotonic() - began)

    def _find_budget(self) -> BudgetView:
        try:
            return BudgetView(_accounts(self._folder))
        except WardroundError as error:
            return BudgetView(trouble=str(error))
        except OSError as error:
            return BudgetView(trouble=f"the ledger cannot be read ({error.strerror}).")

    def _find_policy(self) -> tuple[tuple[str, str], ...]:
        try:
            return policy_words(open_policy(self._folder))
        except WardroundError:  # the doctor's checks say it
            return ()

    def _find_models(self) -> tuple[Model, ...]:
        found = [_model(path) for path in sorted((self._folder / "models").glob("*/contract.json"))]
        return tuple(model for model in found if model is not None)[:_MOST_MODELS]


def verify_words(folder: Path) -> tuple[str, bool]:
    """Return what the check of a site's whole audit log says, and whether it failed."""
    from wardround.client.egress.receipts import kept_receipts
    from wardround.common.security.audit_verification import verify_log
    from wardround.common.security.signing_key import PUBLIC_FILE, open_public_key

    if not (folder / AUDIT_FOLDER / LOG_FILE).exists():
        return "Nothing was ever written there.", False
    try:
        public = open_public_key(folder / KEY_FOLDER / PUBLIC_FILE)
        receipts = kept_receipts(folder, public)
        head = verify_log(folder / AUDIT_FOLDER, public, receipts=receipts)
    except WardroundError as error:
        return f"NOT VERIFIED: {error}", True
    except OSError as error:
        return f"NOT VERIFIED: a file cannot be read ({error.strerror}).", True
    signed = "countersigned none of them yet."
    if receipts:
        signed = f"countersigned the first {receipts[-1].report.entries}."
    told = f"Verified: {head.entries} entries, each as it was written and signed"
    return f"{told}; the server has {signed}", False


def _leaving(entry: Entry) -> Leaving:
    event = entry.event
    round_ = f"{event.round}.{event.attempt}" if event.run else ""
    return Leaving(
        entry.number, entry.time, event.kind, event.verdict, event.study, round_, event.bytes
    )


def _accounts(folder: Path) -> tuple[Account, ...]:
    from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
    from wardround.client.privacy.ledger.file import read_ledger
    from wardround.client.privacy.ledger.report import report_ledger

    if not (find_ledger_folder(folder) / LEDGER_FILE).exists():
        return ()
    report = report_ledger(read_ledger(folder).entries, parts_are_mixed(folder))
    accounts = []
    for one in report.datasets:
        studies = tuple((run.study, run.epsilon, run.reservations) for run in one.runs)
        cap = None if one.cap >= NO_LIMIT else one.cap
        accounts.append(Account(one.dataset, one.part, one.epsilon, cap, one.delta, studies))
    return tuple(accounts)


def _model(path: Path) -> Model | None:
    """Return what a model folder says of itself; None for something else."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        if path.stat().st_size > _LARGEST_CONTRACT:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        name = content["study"]["study"]["name"]
        is_complete = bool(content.get("complete", True))
        return Model(str(name), str(content["study_digest"]), int(content["round"]), is_complete)
    return None


def _account() -> str:
    return accounts.name_of(accounts.acting_numbers()[0])


def _mark_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
