"""What the entries of a ledger amount to: who was admitted, what is charged, what has left."""

from collections.abc import Iterable

from wardround.client.privacy.ledger.charges import Assignment, Reservation, to_charge
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


class LedgerBook:
    """The sum of a ledger's entries.

    Attributes:
        admissions: The last one of each run on each data set, by study, run and data set; the
            newest comes last.
        reservations: By number.
        released: The SHA-256 of what left, by the number of its reservation.
        committed: The numbers of the reservations whose reply is not asked for again.
        servers: Whose orders a run's are, by run.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.admissions: dict[tuple[str, str, str], Admitted] = {}
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
            key = (fact.study, fact.run, fact.dataset)
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
        """Return how a run was admitted to a data set, None if it was not."""
        key = (assignment.study, assignment.run, assignment.dataset)
        return self.admissions.get(key)

    def charged(self, dataset: str, study: str | None = None, run: str | None = None) -> Charged:
        """Return the reservations on a data set: all, or those of a study, or of a run of it."""
        return [
            reservation
            for reservation in self.reservations.values()
            for assignment in (reservation.charge.assignment,)
            if assignment.dataset == dataset
            and study in (None, assignment.study)
            and run in (None, assignment.run)
        ]

    def charged_for(self, server: str) -> list[int]:
        """Return the numbers of the reservations that a server's orders made, in order."""
        return [
            number
            for number, reservation in self.reservations.items()
            if self.servers.get(reservation.charge.assignment.run, "") == server
        ]

    def spends(self, dataset: str, study: str | None = None) -> list[Spend]:
        """Return all that is charged to a data set, or what one study charged to it."""
        return [reservation.charge.spend for reservation in self.charged(dataset, study)]

    def steps_of_study(self, study: str) -> int:
        """Return the steps of all reservations of a study, whatever its runs, and its repeats."""
        charges = (reservation.charge for reservation in self.reservations.values())
        return sum(one.spend.steps for one in charges if one.assignment.study == study)

    def steps_begun(self, assignment: Assignment) -> int:
        """Return the steps of a run's plan that were reserved; a repeated round counts once."""
        charged = self.charged(assignment.dataset, assignment.study, assignment.run)
        return sum({item.charge.round: item.charge.spend.steps for item in charged}.values())

    def awaiting(self, assignment: Assignment) -> Charged:
        """Return a run's reservations whose reply left and may be asked for again."""
        charged = self.charged(assignment.dataset, assignment.study, assignment.run)
        arriving = self.released.keys() - self.committed
        return [reservation for reservation in charged if reservation.number in arriving]

    def datasets(self) -> list[str]:
        """Return the names of all data sets, in the order they were first used."""
        return list(dict.fromkeys(fact.dataset for fact in self.admissions.values()))

    def dataset_of(self, snapshot: str) -> str | None:
        """Return the data set that a set of patients was first charged under."""
        for reservation in self.reservations.values():
            if reservation.charge.assignment.snapshot == snapshot:
                return reservation.charge.assignment.dataset
        return None

    def _known(self, number: int) -> None:
        if number not in self.reservations:
            msg = (
                f"the ledger speaks of reservation {number}, which it does not hold: put the last "
                "good copy of the ledger back."
            )
            raise LedgerError(msg)
