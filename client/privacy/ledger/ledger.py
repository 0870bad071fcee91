"""A site's privacy ledger: what was ever spent on its patients, and what may still be.

Every reply that leaves is charged before it is computed: a study is **admitted** if its planned
spend fits, each round is **reserved** before its training, its reply **released** before its bytes
leave, and **committed** when the server has moved on. Each entry is on the disk before the call
returns. What is reserved is charged, whether or not anything left: a crash counts at most one
reservation too many and never one too few.

**Whose spend it is.** A charge is entered under a data set, a part of it (those trained on, those
of validation, those of the test), and a snapshot that names the patients of the part. What counts
against the lifetime cap is the composition over *all* entries of the part, whatever their snapshot.
Patients come and go between snapshots, and the ledger knows of none who they are; a patient that
was in every snapshot has spent exactly this, one who came later spent less. So the bound holds for
each of them, and adding patients never buys new budget. The snapshot is recorded so that a report
can say which charges were of the same patients, and so that a data set cannot be charged anew under
another name. No patient is in two parts; where one ever was, all parts are one account.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from wardround import __version__
from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
from wardround.client.privacy.ledger.budget import Accountant, Caps, check_steps
from wardround.client.privacy.ledger.charges import (
    MAIN_DATASET,
    TRAIN,
    Assignment,
    Charge,
    Reservation,
    to_admission,
    to_fact,
)
from wardround.client.privacy.ledger.entries import (
    FORMAT,
    Committed,
    Fact,
    LedgerError,
    Opened,
    Ordered,
    Released,
)
from wardround.client.privacy.ledger.file import LedgerFile, find_ledger_folder
from wardround.client.privacy.ledger.snapshot import open_salt, snapshot_of
from wardround.client.privacy.ledger.totals import LedgerBook
from wardround.common.files.json_lines import ChainHead
from wardround.common.privacy.accounting import Spend

_SHOWN = 12  # of a digest


class PrivacyLedger:
    """The open ledger of a site; one process has it open at a time.

    Args:
        site_folder: The site's folder, whose ``site.toml`` may say that the ledger lies elsewhere.
        durable: Whether an entry waits for the disk; a simulation does without.
        patience_seconds: How long it is waited for another process that has it open.

    Raises:
        LedgerError: Another process has it open, it was edited, or it cannot be written.
    """

    def __init__(
        self, site_folder: Path, durable: bool = True, patience_seconds: float = 0.0
    ) -> None:
        self._folder = find_ledger_folder(site_folder)
        self._durable, self._patience_seconds = durable, patience_seconds
        self._file = LedgerFile(self._folder, durable, patience_seconds)
        try:
            self._salt = open_salt(self._folder, durable)
            self._book = LedgerBook(self._file.entries)
            self._mixed = parts_are_mixed(site_folder)
            self._accountants: dict[float, Accountant] = {}
            if not self._file.entries:
                self._append(Opened(secrets.token_hex(16), __version__, FORMAT))
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, site_folder: Path, durable: bool = True, patience_seconds: float = 0.0) -> Self:
        """Open the ledger of a site, or begin one."""
        return cls(site_folder, durable, patience_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process open the ledger."""
        self._file.close()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Let other processes use the ledger meanwhile: a training takes long.

        Raises:
            LedgerError: Another process keeps it, or it does not hold afterwards what it held.
        """
        before = self._file.entries[-1]
        self._file.close()
        yield
        self._file = LedgerFile(self._folder, self._durable, self._patience_seconds)
        entries = self._file.entries
        if entries[before.number : before.number + 1] != [before]:
            self.close()
            msg = (
                f"the ledger in {self._folder} is another one than before the training: put the "
                "site's own back. The site does not train until then."
            )
            raise LedgerError(msg)
        self._book = LedgerBook(entries)

    @property
    def counter(self) -> int:
        """Number of entries; it does not leave the site."""
        return len(self._file.entries)

    def marks(self, server: str) -> tuple[str, ...]:
        """Return the hashes of the reservations that a server's orders made, in order.

        They are all that a server learns of a ledger: how many rounds it was charged for itself,
        and a hash that depends on the random number of the first entry. What other servers ordered,
        who the patients are and what the caps were makes other entries, and other hashes.
        """
        entries = self._file.entries
        return tuple(entries[number].hash for number in self._book.charged_for(server))

    def head(self, server: str) -> ChainHead:
        """Return the last of a server's marks, which travels with its reply."""
        marks = self.marks(server)
        return ChainHead(len(marks), marks[-1]) if marks else ChainHead()

    def snapshot(self, patients: Iterable[str]) -> str:
        """Return the name of a set of patients, which tells nothing about them."""
        return snapshot_of(patients, self._salt)

    def check_head(self, server: str, remembered: ChainHead) -> None:
        """Check that this ledger holds what a server was once told of it.

        Args:
            remembered: What the server remembers; no entries if it knows of none.

        Raises:
            LedgerError: The ledger is behind, or another one: it was deleted, or put back from a
                copy, and does not hold all that was spent.
        """
        marks, expected = self.marks(server), remembered.entries
        if expected > len(marks):
            msg = (
                f"the privacy ledger holds {len(marks)} charges for this server and the server has "
                f"seen {expected}: it was deleted, or an old copy was put back. Put the newest "
                "copy back. The site does not train until then."
            )
            raise LedgerError(msg)
        if expected > 0 and remembered.hash and marks[expected - 1] != remembered.hash:
            msg = (
                f"charge {expected} for this server in the privacy ledger is not the one that the "
                "server has seen: this is another ledger. Put the site's own back. The site does "
                "not train until then."
            )
            raise LedgerError(msg)

    def bind(self, run: str, server: str) -> None:
        """Record whose orders a run's are, before its first charge; once is enough.

        Args:
            server: Empty where the site has joined none.

        Raises:
            LedgerError: They are another server's.
        """
        known = self._book.servers.get(run, "")
        if known == server:
            return
        if known or any(
            one.charge.assignment.run == run for one in self._book.reservations.values()
        ):
            msg = f"run {run[:_SHOWN]} is another server's: it is not answered here."
            raise LedgerError(msg)
        self._append(Ordered(run, server))

    def spent(self, delta: float, dataset: str = MAIN_DATASET, part: str = TRAIN) -> float:
        """Return the epsilon of everything charged to the patients of a part of a data set."""
        return self._accountant(delta).epsilon(self._book.spends(dataset, part=self._account(part)))

    def admit(self, assignment: Assignment, planned: Spend, clip_norm: float, caps: Caps) -> None:
        """Let a run of a study begin, if all that it plans fits under the caps.

        Where the caps do not bind plans it begins if one step fits, and each round is held against
        them; what cannot begin is not written down, or a server could fill the ledger with runs.
        A run that was admitted with this plan and these caps goes on: should a crash have made it
        dearer than planned, its last rounds may not fit, and are refused one by one.

        Args:
            planned: All rounds of the study. What this run has reserved of them is not counted
                twice; a new run plans all of them again.
            clip_norm: For the report; it costs nothing.

        Raises:
            BudgetError: It does not fit.
            LedgerError: The patients are charged under another data set's name.
        """
        self._check_dataset(assignment)
        admission = to_admission(assignment, planned, clip_norm, caps)
        before = self._book.admission(assignment)
        if before == admission:
            return
        known = before is not None and replace(before, snapshot=assignment.snapshot) == admission
        if not known:
            rest = max(planned.steps - self._book.steps_begun(assignment), 0)
            steps = rest if caps.bind_plans else 1
            self._check_caps(assignment, replace(planned, steps=steps), caps)
        self._append(admission)

    def reserve(self, charge: Charge, caps: Caps) -> Reservation:
        """Charge one reply, before anything is computed for it.

        Raises:
            BudgetError: It does not fit under the caps as they are now, or more steps than were
                approved.
            LedgerError: The run was not admitted, or with another sampling or noise.
        """
        self._check_dataset(charge.assignment)
        self._check_admitted(charge)
        self._check_caps(charge.assignment, charge.spend, caps)
        number = self._append(to_fact(charge))
        return self._book.reservations[number]

    def release(self, reservation: Reservation, sha256: str) -> None:
        """Record the one reply of a reservation, before its bytes leave.

        Args:
            sha256: Of the bytes, 64 hexadecimal digits. The same again is recorded once.

        Raises:
            LedgerError: The reservation is not in the ledger, or another reply left under it.
        """
        self._check_known(reservation)
        recorded = self._book.released.get(reservation.number)
        if recorded is None:
            self._append(Released(reservation.number, sha256))
        elif recorded != sha256:
            msg = (
                f"under reservation {reservation.number} the answer {recorded[:_SHOWN]} left, not "
                f"{sha256[:_SHOWN]}: reserve again for a new answer."
            )
            raise LedgerError(msg)

    def commit(self, reservation: Reservation) -> None:
        """Record that the server has moved on from a reply; once is enough.

        Raises:
            LedgerError: The reservation is not in the ledger, or nothing left under it.
        """
        self._check_known(reservation)
        if reservation.number not in self._book.released:
            msg = f"nothing left under reservation {reservation.number}: release it first."
            raise LedgerError(msg)
        if reservation.number not in self._book.committed:
            self._append(Committed(reservation.number))

    def find(self, number: int, charge: Charge) -> Reservation | None:
        """Return the reservation of a number if it is of this study, run, round and attempt."""
        found = self._book.reservations.get(number)
        if found is None or _reply(found.charge) != _reply(charge):
            return None
        return found

    def answered(self, assignment: Assignment) -> list[Reservation]:
        """Return what a study has reserved on a part of a data set, over all its runs."""
        return self._book.answered(assignment)

    def has_left(self, reservation: Reservation) -> bool:
        """Return whether a reply was released under a reservation."""
        return reservation.number in self._book.released

    def awaiting(self, assignment: Assignment) -> list[Reservation]:
        """Return a run's reservations whose reply left and may be asked for again."""
        return self._book.awaiting(assignment)

    def _append(self, fact: Fact) -> int:
        entry = self._file.append(fact)
        self._book.add(entry)
        return entry.number

    def _accountant(self, delta: float) -> Accountant:
        return self._accountants.setdefault(delta, Accountant(delta))

    def _check_known(self, reservation: Reservation) -> None:
        if self._book.reservations.get(reservation.number) != reservation:
            msg = (
                f"reservation {reservation.number} is not in this ledger: reserve before training."
            )
            raise LedgerError(msg)

    def _check_dataset(self, assignment: Assignment) -> None:
        first = self._book.dataset_of(assignment.snapshot)
        if first not in (None, assignment.dataset):
            msg = (
                f"the same patients are charged to the data set {first!r}: go on under that name, "
                f"{assignment.dataset!r} has no budget for them."
            )
            raise LedgerError(msg)

    def _check_admitted(self, charge: Charge) -> None:
        admitted, spend = self._book.admission(charge.assignment), charge.spend
        study = charge.assignment.study[:_SHOWN]
        if admitted is None:
            msg = f"study {study} was not admitted to this data set: admit its plan first."
            raise LedgerError(msg)
        plan = (admitted.sampling_rate, admitted.noise_multiplier)
        if plan != (spend.sampling_rate, spend.noise_multiplier):
            msg = (
                f"a round of study {study} would spend at q = {spend.sampling_rate:g} and sigma = "
                f"{spend.noise_multiplier:g}, its plan says {plan[0]:g} and {plan[1]:g}: "
                "train as planned."
            )
            raise LedgerError(msg)

    def _check_caps(self, assignment: Assignment, spend: Spend, caps: Caps) -> None:
        study, dataset = assignment.study, assignment.dataset
        if assignment.part == TRAIN:
            check_steps(self._book.steps_of_study(study) + spend.steps, caps, study)
        accountant = self._accountant(caps.lifetime_delta)
        part = self._account(assignment.part)
        of_study = [*self._book.spends(dataset, study, part), spend]
        accountant.check(of_study, caps.study_epsilon, "study", f"study {study[:_SHOWN]}")
        whole = [*self._book.spends(dataset, part=part), spend]
        accountant.check(whole, caps.lifetime_epsilon, "lifetime", f"the data set {dataset!r}")

    def _account(self, part: str) -> str | None:
        """Return the part that a part's charges are held against; None for all together."""
        return None if self._mixed or self._book.is_shared else part


def _reply(charge: Charge) -> tuple[str, str, str, str, int, int]:
    assignment = charge.assignment
    return (
        assignment.study,
        assignment.run,
        assignment.dataset,
        assignment.part,
        charge.round,
        charge.attempt,
    )
