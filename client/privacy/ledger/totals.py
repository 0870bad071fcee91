"""What the entries of a ledger amount to: who was admitted, what is charged, what has left."""

from collections.abc import Iterable
from pathlib import Path

from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
from wardround.client.privacy.ledger.charges import TRAIN, Assignment, Reservation, to_charge
from wardround.client.privacy.ledger.entries import (
    Admitted,
    Committed,
    Entry,
    LedgerError,
    Ordered,
    Released,
    Reserved,
)
from wardround.common.privacy.accounting import Spend

Charged = list[Reservation]


def account_of(site_folder: Path, book: "LedgerBook", part: str) -> str | None:
    """Return the part whose charges a part's are held against; None where all are one account.

    Raises:
        DataError: What is written of the parts is damaged.
    """
    return None if parts_are_mixed(site_folder) or book.is_shared else part


class LedgerBook:
    """The sum of a ledger's entries.

    Attributes:
        admissions: The last one of each run on each part of a data set, by study, run, data set
            and part; the newest comes last.
        reservations: By number.
        released: The SHA-256 of what left, by the number of its reservation.
        committed: The numbers of the reservations whose reply is not asked for again.
        servers: Whose orders a run's are, by run.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.admissions: dict[tuple[str, str, str, str], Admitted] = {}
        self.reservations: dict[int, Reservation] = {}
        self.released: dict[int, str] = {}
        self.committed: set[int] = set()
        self.servers: dict[str, str] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take an entry in.

        Raises:
            LedgerError: It speaks of a reservation that is not there.
        """
        fact = entry.fact
        if isinstance(fact, Admitted):
            key = (fact.study, fact.run, fact.dataset, fact.part)
            self.admissions.pop(key, None)
            self.admissions[key] = fact
        elif isinstance(fact, Ordered):
            self.servers.setdefault(fact.run, fact.server)
        elif isinstance(fact, Reserved):
            self.reservations[entry.number] = Reservation(entry.number, to_charge(fact))
        elif isinstance(fact, Released):
            self._known(fact.reservation)
            self.released[fact.reservation] = fact.sha256
        elif isinstance(fact, Committed):
            self._known(fact.reservation)
            self.committed.add(fact.reservation)

    def admission(self, assignment: Assignment) -> Admitted | None:
        """Return how a run was admitted to a part of a data set, None if it was not."""
        key = (assignment.study, assignment.run, assignment.dataset, assignment.part)
        return self.admissions.get(key)

    def charged(
        self,
        dataset: str,
        study: str | None = None,
        run: str | None = None,
        part: str | None = None,
    ) -> Charged:
        """Return the reservations on a data set: all, or those of a study, a run or a part."""
        return [
            reservation
            for reservation in self.reservations.values()
            for assignment in (reservation.charge.assignment,)
            if assignment.dataset == dataset
            and study in (None, assignment.study)
            and run in (None, assignment.run)
            and part in (None, assignment.part)
        ]

    def charged_for(self, server: str) -> list[int]:
        """Return the numbers of the reservations that a server's orders made, in order."""
        return [
            number
            for number, reservation in self.reservations.items()
            if self.servers.get(reservation.charge.assignment.run, "") == server
        ]

    @property
    def is_shared(self) -> bool:
        """Whether several servers' orders were charged here, so several site folders share it.

        Each folder has drawn its own parts, so that a patient may be in several: the parts are one
        account then.
        """
        return len(set(self.servers.values())) > 1

    def spends(
        self, dataset: str, study: str | None = None, part: str | None = None
    ) -> list[Spend]:
        """Return all that is charged to a data set, or what one study charged, or to one part."""
        charged = self.charged(dataset, study, part=part)
        return [reservation.charge.spend for reservation in charged]

    def steps_of_study(self, study: str) -> int:
        """Return the training steps charged to a study, over all its runs and repeats."""
        charges = (reservation.charge for reservation in self.reservations.values())
        trained = (one for one in charges if one.assignment.part == TRAIN)
        return sum(one.spend.steps for one in trained if one.assignment.study == study)

    def steps_begun(self, assignment: Assignment) -> int:
        """Return the steps of a run's plan that were reserved; a repeated round counts once."""
        charged = self._of_run(assignment)
        return sum({item.charge.round: item.charge.spend.steps for item in charged}.values())

    def awaiting(self, assignment: Assignment) -> Charged:
        """Return a run's reservations whose reply left and may be asked for again."""
        charged = self._of_run(assignment)
        arriving = self.released.keys() - self.committed
        return [reservation for reservation in charged if reservation.number in arriving]

    def answered(self, assignment: Assignment) -> Charged:
        """Return what a study reserved on a part of a data set, over all its runs."""
        return self.charged(assignment.dataset, assignment.study, part=assignment.part)

    def datasets(self) -> list[str]:
        """Return the names of all data sets, in the order they were first used."""
        return list(dict.fromkeys(fact.dataset for fact in self.admissions.values()))

    def dataset_of(self, snapshot: str) -> str | None:
        """Return the data set that a set of patients was first charged under."""
        for reservation in self.reservations.values():
            if reservation.charge.assignment.snapshot == snapshot:
                return reservation.charge.assignment.dataset
        return None

    def parts(self, dataset: str) -> list[str]:
        """Return the parts of a data set that were charged, or admitted to, in their order."""
        found = [fact.part for fact in self.admissions.values() if fact.dataset == dataset]
        return list(dict.fromkeys(found))

    def _of_run(self, assignment: Assignment) -> Charged:
        return self.charged(
            assignment.dataset, assignment.study, assignment.run, part=assignment.part
        )

    def _known(self, number: int) -> None:
        if number not in self.reservations:
            msg = (
                f"the ledger speaks of reservation {number}, which it does not hold: put the last "
                "good copy of the ledger back."
            )
            raise LedgerError(msg)
