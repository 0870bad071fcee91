"""What the hospital's page knows of its site: typed facts, none of which names a patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from wardround.client.daemon.status import DaemonStatus
from wardround.client.page.errands import Errand


@dataclass(frozen=True, slots=True)
class Waiting:
    """A study that waits for a decision."""

    digest: str
    name: str
    description: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision of this hospital."""

    digest: str
    name: str
    verdict: str
    account: str
    date: datetime
    rounds: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """A line of the audit log.

    Attributes:
        what: E.g. ``update``.
        verdict: ``allow``, or why it was refused.
        round: "" where it is of none.
    """

    number: int
    time: str
    what: str
    verdict: str
    digest: str
    round: str
    bytes: int


@dataclass(frozen=True, slots=True)
class AuditView:
    """What left the site.

    Attributes:
        entries: How many there are.
        last: The newest of them, the newest first.
        answers: How many let something out.
        refusals: How many were refused.
        bytes: Of all that left.
        verified: What the check of the whole chain says; "" before it was made.
        is_broken: Whether that check failed.
        trouble: Why the log cannot be read; "" where it can.
    """

    entries: int = 0
    last: tuple[Leaving, ...] = ()
    answers: int = 0
    refusals: int = 0
    bytes: int = 0
    verified: str = ""
    is_broken: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """What is spent on one part of the patients.

    Attributes:
        spent: Epsilon at ``delta``.
        cap: None for a site without one.
        studies: The digest of each study, and the epsilon of it alone and its rounds.
    """

    dataset: str
    part: str
    spent: float
    cap: float | None
    delta: float
    studies: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetView:
    """The privacy ledger.

    Attributes:
        accounts: Empty where nothing was ever spent.
        trouble: Why the ledger cannot be read; "" where it can.
    """

    accounts: tuple[Account, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A finished model that was fetched."""

    study: str
    digest: str
    round: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class SiteView:
    """A site as its folder and its daemon tell it.

    Attributes:
        server: "host:port"; "" where it has joined none.
        daemon: None where none answers; ``no_daemon`` says why.
        faults: What stands in the way of any study: its name, the fact and the remedy.
        policy: What is allowed, a name and a sentence each.
        errands: The last errand of each kind.
        may_decide: Whether studies are approved and rejected on this page.
        account: Under which decisions are written down.
        typed: The site folder as it was typed, for commands that are shown.
    """

    site: str
    server: str
    typed: str
    account: str
    may_decide: bool
    daemon: DaemonStatus | None = None
    no_daemon: str = ""
    faults: tuple[tuple[str, str, str], ...] = ()
    waiting: tuple[Waiting, ...] = ()
    waiting_trouble: str = ""
    decided: tuple[Decided, ...] = ()
    audit: AuditView = AuditView()
    budget: BudgetView = BudgetView()
    policy: tuple[tuple[str, str], ...] = ()
    models: tuple[Model, ...] = ()
    errands: Mapping[str, Errand] | None = None

    def errand(self, name: str) -> Errand | None:
        """Return the last errand of a kind."""
        return (self.errands or {}).get(name)

    def name_of(self, digest: str) -> str:
        """Return the name of a study that is known here, "" for another one."""
        known = {one.digest: one.name for one in self.decided}
        known |= {one.digest: one.name for one in self.waiting}
        return known.get(digest, "")
