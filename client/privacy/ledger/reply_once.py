"""One order, one answer, one charge: however often it is asked for and wherever the site crashes.

The only way in which a private answer leaves: what was packed before is sent again, byte for byte;
anything new is reserved before it is computed, kept on the disk, and released before it leaves.
"""

from collections.abc import Callable

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Charge, Reservation
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply


def reply_once(
    ledger: PrivacyLedger, outbox: Outbox, charge: Charge, caps: Caps, work: Callable[[], bytes]
) -> bytes:
    """Return the bytes that may leave as the answer to an order.

    An order for a round says that the run's earlier answers will not be asked for again: they are
    committed, and dropped from the outbox.

    Args:
        charge: The order, and what its answer spends.
        work: Trains and packs the answer; called only if none is kept, and after it is paid for.

    Raises:
        BudgetError: The charge does not fit; nothing was computed.
        LedgerError: The ledger cannot vouch for it; nothing leaves.
        RunError: The answer cannot be kept; nothing leaves.
    """
    _settle(ledger, outbox, charge)
    assignment = charge.assignment
    key = ReplyKey(assignment.study, assignment.run, charge.round, charge.attempt)
    reservation, reply = _kept(ledger, outbox, key, charge)
    if reservation is None or reply is None:
        reservation = ledger.reserve(charge, caps)
        reply = StoredReply(reservation.number, work())
        outbox.keep(key, reply)
    ledger.release(reservation, reply.sha256)
    return reply.content


def _kept(
    ledger: PrivacyLedger, outbox: Outbox, key: ReplyKey, charge: Charge
) -> tuple[Reservation | None, StoredReply | None]:
    """Return what was packed before, and what paid for it: an unpaid answer is none."""
    reply = outbox.find(key)
    return (None, None) if reply is None else (ledger.find(reply.reservation, charge), reply)


def _settle(ledger: PrivacyLedger, outbox: Outbox, charge: Charge) -> None:
    assignment = charge.assignment
    for reservation in ledger.awaiting(assignment):
        if reservation.charge.round < charge.round:
            ledger.commit(reservation)
    outbox.drop_before(assignment.study, assignment.run, charge.round)
