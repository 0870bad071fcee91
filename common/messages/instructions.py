"""What a server asks of a site, and how it travels in a Flower message.

A message holds typed records: ``order`` (a ConfigRecord that says which round of which study) and
``model`` (the named arrays). It holds no code.
"""

import re
import secrets
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.flower.messages.records import arrays_of, configs_of
from wardround.common.parameters.parameters import (
    Model,
    Parameters,
    from_array_record,
    to_array_record,
)

INTRODUCE = "query.introduce"
TRAIN = "train"
EVALUATE = "evaluate"

_RUN = re.compile(r"[0-9a-f]{32}")  # a site names a folder by it


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """A place in a site's privacy ledger: who remembers it can tell that ledger from another.

    Attributes:
        entries: How many there were; 0 where nothing is known.
        head: Hash of the last of them, which tells nothing of what it says.
    """

    entries: int = 0
    head: str = ""

    def or_later(self, other: "LedgerMark") -> "LedgerMark":
        """Return the other mark if it is later, this one otherwise."""
        return other if other.entries > self.entries else self

    def contradicts(self, other: "LedgerMark") -> bool:
        """Return whether both cannot be of one ledger."""
        return self.entries == other.entries and self.head != other.head


NO_LEDGER = LedgerMark()


@dataclass(frozen=True, slots=True)
class Standing:
    """What an order says to one site alone.

    Attributes:
        counted_round: The last round whose update of this site was taken in, 0 if none was. What
            the site kept after it belongs to an update that was refused or lost. -1: not said.
        ledger: The last entry of its privacy ledger that this site has reported.
    """

    counted_round: int = -1
    ledger: LedgerMark = NO_LEDGER


@dataclass(frozen=True, slots=True)
class Order:
    """A request to train on, or to evaluate, a model.

    Attributes:
        digest: The study, which the site must have approved.
        run: The run of the study, from :func:`new_run`; two runs of one study share nothing.
        round: The round that is being trained, from 1; for an evaluation the model's own round.
        attempt: Counts the tries at this round; a site asked the same twice answers the same.
        split: Whose patients an evaluation is about.
        surfaces: Whether an evaluation computes surface distances.
        parameters: What is shared of the model; empty for an introduction.
        extras: What a strategy sends beside the model, e.g. a control variate.
        kept_round: The round whose model is the best so far, -1 if none: a site with a part of its
            own keeps that round's too.
        validate: Whether a site evaluates the model before it trains.
        personal: Whether an evaluation is of the site's personal model, where it has one.
        counted_round: See :class:`Standing`.
        ledger: See :class:`Standing`.
    """

    digest: str
    run: str
    round: int
    parameters: Parameters
    attempt: int = 0
    split: str = "validation"
    surfaces: bool = False
    extras: Parameters = field(default_factory=dict)
    kept_round: int = -1
    validate: bool = True
    personal: bool = True
    counted_round: int = -1
    ledger: LedgerMark = NO_LEDGER


def new_run() -> str:
    """Return the name of a new run, 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def pack_order(order: Order, stored: Model | None = None) -> RecordDict:
    """Return the content of the message that carries an order.

    Args:
        stored: A model that lies on disk and is sent instead of the order's own parameters, so that
            it need not be in memory twice.
    """
    content = RecordDict(
        {
            "order": ConfigRecord(
                {
                    "digest": order.digest,
                    "run": order.run,
                    "round": order.round,
                    "attempt": order.attempt,
                    "split": order.split,
                    "surfaces": order.surfaces,
                    "kept-round": order.kept_round,
                    "validate": order.validate,
                    "personal": order.personal,
                }
            ),
            "model": to_array_record(order.parameters if stored is None else stored),
            "standing": _pack_standing(order.counted_round, order.ledger),
        }
    )
    if order.extras:
        content["extras"] = to_array_record(order.extras)
    return content


def addressed(content: RecordDict, standing: Standing) -> RecordDict:
    """Return an order with what it says to one site alone; the arrays are shared, not copied."""
    own = _pack_standing(standing.counted_round, standing.ledger)
    return RecordDict({**content, "standing": own})


def unpack_order(content: RecordDict) -> Order:
    """Return the order in a message.

    Raises:
        RunError: The message is not an order of this version.
    """
    try:
        header, standing = configs_of(content)["order"], configs_of(content)["standing"]
        model = arrays_of(content)["model"]
        extras = arrays_of(content).get("extras")
        return Order(
            digest=str(header["digest"]),
            run=_checked_run(str(header["run"])),
            round=int(header["round"]),  # type: ignore[arg-type] # a bad value is caught below
            attempt=int(header["attempt"]),  # type: ignore[arg-type]
            split=str(header["split"]),
            surfaces=bool(header["surfaces"]),
            parameters=from_array_record(model),
            extras={} if extras is None else from_array_record(extras),
            kept_round=int(header["kept-round"]),  # type: ignore[arg-type]
            validate=bool(header["validate"]),
            personal=bool(header["personal"]),
            counted_round=int(standing["counted-round"]),  # type: ignore[arg-type]
            ledger=LedgerMark(
                int(standing["ledger-counter"]),  # type: ignore[arg-type]
                str(standing["ledger-head"]),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"the server's order cannot be read ({type(error).__name__}): update wardround."
        raise RunError(msg) from None


def _pack_standing(counted_round: int, ledger: LedgerMark) -> ConfigRecord:
    return ConfigRecord(
        {
            "counted-round": counted_round,
            "ledger-counter": ledger.entries,
            "ledger-head": ledger.head,
        }
    )


def _checked_run(name: str) -> str:
    if not _RUN.fullmatch(name):
        msg = "a run is named by 32 hexadecimal digits"
        raise ValueError(msg)
    return name
