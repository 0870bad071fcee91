"""The messages of ``operators.proto`` as dataclasses: checked where they come in.

Times are seconds since 1970. ``wire.py`` makes of each the protobuf message of the same name.
"""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

from wardround.common.errors import InputError
from wardround.server.checkpoints.canary import CanaryReport
from wardround.server.checkpoints.canary import CanaryRow as CanaryRow
from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.checkpoints.lost_sites import lost_words
from wardround.server.sites.withdrawals_told import WithdrawalAsked as WithdrawalAsked
from wardround.server.sites.withdrawals_told import WithdrawalPlanned as WithdrawalPlanned
from wardround.server.sites.withdrawals_told import Withdrawals as Withdrawals
from wardround.server.sites.withdrawals_told import WithdrawalWaiting as WithdrawalWaiting

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class Nothing:
    """A question without particulars."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A study that is handed in.

    Attributes:
        text: The study file, as it is.
        form: ``toml`` or ``json``.
        sites: Whom the run is for; none for whoever is there.
        canary: Whether one round is gone through at every site, and nothing trained.
    """

    text: str
    form: str = "toml"
    sites: tuple[str, ...] = ()
    canary: bool = False


@dataclass(frozen=True, slots=True)
class AboutRun:
    """Names a run."""

    run: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that a study was given.

    Attributes:
        digest: What hospitals approve.
        ahead: How many runs are before it.
    """

    run: str
    study: str
    digest: str
    ahead: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run stands.

    Attributes:
        state: ``queued``, ``starting``, ``waiting for sites``, ``running``, ``stopping``,
            ``stopped``, ``finished`` or ``failed``.
        message: What it waits for, or why it ended.
        round: Rounds committed.
        value: The study's metric over all sites, of the model that the last round started from.
        without: The sites that the run is for and that have taken part in no round of it.
        missed: In how many rounds each site did not train, though the run is for it.
    """

    run: str
    study: str
    digest: str
    state: str
    message: str
    round: int
    rounds: int
    metric: str
    value: float | None
    submitted: float
    started: float | None
    ended: float | None
    without: tuple[str, ...] = ()
    missed: dict[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing happens any more unless an operator resumes it."""
        return self.state in ("stopped", "finished", "failed")

    @property
    def standing(self) -> str:
        """The state, with the sites that are missing from what was done."""
        lost = lost_words(self.without, self.missed, self.round)
        return f"{self.state} {lost}" if lost else self.state


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site that did not contribute, and why, in policy words; nothing of its data.

    Attributes:
        asked: What it was asked for: ``training``, or an evaluation on a split's patients.
        times: In how many rounds.
    """

    site: str
    reason: str
    asked: str
    times: int


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round of a run; the one after the last only measures.

    Attributes:
        measured_round: Which model ``value`` is about; 0 is the initial one.
        value: The study's metric over all sites; None if it was not measured.
        sites: Who contributed.
    """

    round: int
    measured_round: int
    seconds: float
    value: float | None
    sites: tuple[str, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class RunDetails:
    """All that is known of a run.

    Attributes:
        sites: Who takes part, as far as that is known.
        starts: How often its process was started.
        deadlines: How long its rounds wait for a site, in words.
        evidence: What follows from the packs that left the sites.
        canary: What a canary round found; None of any other run, and before its end.
    """

    summary: RunSummary
    sites: tuple[str, ...]
    starts: int
    deadlines: str
    history: tuple[RoundReport, ...]
    refusals: tuple[Refusal, ...]
    evidence: tuple[EvidenceRow, ...] = ()
    canary: CanaryReport | None = None


@dataclass(frozen=True, slots=True)
class SitePart:
    """What a site did in a round.

    Attributes:
        seconds: As it says itself; 0 where its policy lets that not out.
    """

    site: str
    round: int
    seconds: float
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True, slots=True)
class SiteValue:
    """The study's metric of one model, on one site's patients or on all sites' together.

    Attributes:
        round: After which the model was made; 0 is the initial one.
        split: Of the patients: mostly ``validation``.
    """

    site: str
    round: int
    split: str
    value: float | None


@dataclass(frozen=True, slots=True)
class MeasuredValue:
    """One measured number of one model, on one site's patients or on all sites' together.

    Attributes:
        round: After which the model was made; 0 is the initial one.
        class_name: One class, or "" for the metric over all classes.
    """

    site: str
    round: int
    split: str
    metric: str
    class_name: str
    value: float | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a report of a run is made of.

    Attributes:
        measured: Every metric; ``values`` are those of the study's own.
        study: The study file (TOML).
        server: The version of wardround that the server runs.
    """

    details: RunDetails
    study: str
    server: str
    parts: tuple[SitePart, ...]
    values: tuple[SiteValue, ...]
    measured: tuple[MeasuredValue, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A part of the file of the model that a run keeps.

    Attributes:
        digest: Of the whole model's numbers, as the run's log says it.
        kept_round: After which it was made; 0 is the initial one.
    """

    digest: str
    kept_round: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs, the oldest first."""

    runs: tuple[RunSummary, ...]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run.

    Attributes:
        kind: ``state`` (it stands differently), ``round`` (one was committed), ``measured`` (the
            last model was), ``refusal``, ``note`` (its process said something), ``end``.
        state: As in RunSummary, at that moment.
        message: In words.
        round: Of a round, of what was measured, and of a refusal.
        site: Of a refusal.
        time: When it happened; None where that was not written down.
    """

    kind: str
    state: str
    message: str = ""
    round: int = 0
    rounds: int = 0
    metric: str = ""
    value: float | None = None
    seconds: float = 0.0
    site: str = ""
    sites: tuple[str, ...] = ()
    time: float | None = None


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """A site of the consortium.

    Attributes:
        expires: When its certificate does; None if it has none.
        seen: When it was last connected, to about ten seconds; None if never.
        connected: Whether it counts as connected: its heartbeat is not missed yet.
        lost: Since when a connected site has no connection open; None where it has one.
        wardround: The version that it said it runs, when it was last ready for a study; "" if it
            never was.
        monitoring: Whether its monitoring of a model raised an alarm in its last period, as it
            said before a study: "quiet", "alarm", or a noised one of these; "" if it never did.
        monitored: When it said so.
    """

    site: str
    joined: float
    expires: float | None
    revoked: bool
    seen: float | None
    connected: bool
    lost: float | None = None
    wardround: str = ""
    monitoring: str = ""
    monitored: float | None = None

    @property
    def presence(self) -> str:
        """How it stands in a word: connected, lost (its connection broke) or away."""
        if not self.connected:
            return "away"
        return "connected" if self.lost is None else "lost"


@dataclass(frozen=True, slots=True)
class Sites:
    """All sites that ever joined, by name."""

    sites: tuple[SiteSummary, ...]


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """How a server stands.

    Attributes:
        address: Where sites reach it.
        link_is_up: Whether sites can reach it now.
        runs: How many are in each state.
        certificate_expires: The server's own.
    """

    name: str
    version: str
    address: str
    started: float
    link_is_up: bool
    sites: int
    connected: int
    runs: dict[str, int]
    certificate_expires: float | None


def to_content(message: object) -> dict[str, Any]:
    """Return a message as plain values."""
    if not is_dataclass(message) or isinstance(message, type):
        msg = f"{type(message).__name__} is no message"
        raise TypeError(msg)
    return asdict(message)


def from_content(kind: type[_Message], content: Mapping[str, Any]) -> _Message:
    """Return the message that plain values say.

    Raises:
        InputError: A field is missing, unknown, or not of its type.
    """
    from pydantic import ValidationError

    try:
        checked: _Message = _checker(cast("Hashable", kind)).validate_python(dict(content))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        places = ", ".join(".".join(str(part) for part in one["loc"]) for one in problems)
        msg = (
            f"the message {kind.__name__} is not as it should be ({places}): "
            "both sides must run the same version."
        )
        raise InputError(msg) from None
    return checked


@lru_cache(maxsize=64)
def _checker(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config

    with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(kind)
    return TypeAdapter(kind)
