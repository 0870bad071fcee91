"""Whether a model's signed record is whole: every round to the kept one, its chain, its keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.common.errors import ModelError
from wardround.common.runtime.fields import OfForm
from wardround.common.runtime.printable import printable
from wardround.common.security.lineage import (
    LARGEST_BYTES,
    LINEAGE_FILE,
    MOST_COUNTED,
    ROUND_TYPE,
    SITE_TYPE,
    line_hash,
    open_envelope,
    open_line,
)

_Hex = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]
_HexOrNone = Annotated[str, OfForm("^([0-9a-f]{64})?$", "64 hexadecimal digits or none")]
_Run = Annotated[str, OfForm("^[0-9a-f]{32}$", "32 hexadecimal digits")]
_Short = Annotated[str, Field(max_length=256)]
_Count = Annotated[int, Field(ge=0, le=MOST_COUNTED)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Digest(_Part):
    sha256: _Hex


class _DigestOrNone(_Part):
    sha256: _HexOrNone


class _Subject(_Part):
    name: Literal["model", "update"]
    digest: _Digest


class _Ledger(_Part):
    head: _HexOrNone


class _Audit(_Part):
    mark: _HexOrNone


class _SitePredicate(_Part):
    study: _Hex
    run: _Run
    round: _Count
    attempt: _Count
    model: _Digest
    ledger: _Ledger
    audit: _Audit


class _Parent(_Part):
    study: _Hex
    run: _Run


class _RoundPredicate(_Part):
    study: _Hex
    run: _Run
    round: _Count
    before: _DigestOrNone
    previous: _HexOrNone
    sent: list[_Hex]
    wardround: _Short
    code: _Digest
    strategy: _Short
    sites: list[_Hex]
    receipts: list[Any]
    unsigned: _Count
    mean: _Digest | None = None
    parent: _Parent | None = None


class _Statement(_Part):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, Any]


_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a signed record says, once it was verified.

    Attributes:
        rounds: How many rounds lead to the model.
        server: The key that signed all of them, 64 hexadecimal digits.
        sites: The rounds that each site's key has signed a part of.
        unsigned: Updates in the model whose sites signed nothing that fits.
        strategy: How updates were combined, as of the last round.
        code: The servers' code, each once.
    """

    rounds: int
    server: str
    sites: dict[str, tuple[int, ...]]
    unsigned: int
    strategy: str
    code: tuple[str, ...]


def verify_lineage(content: bytes, study: str, model: str, kept: int) -> Lineage:
    """Return what a model's record says.

    Args:
        content: Of ``lineage.jsonl``.
        study: The digest of the model's study.
        model: The digest of what its sites share of it.
        kept: The round that made it.

    Raises:
        ModelError: A line was changed, is missing, or does not lead to the model; says which.
    """
    if len(content) > LARGEST_BYTES or not content.endswith(b"\n"):
        _refuse("is cut off, or too long")
    lines = content[:-1].split(b"\n")
    rounds: list[_RoundPredicate] = []
    models: list[str] = []
    sites: dict[str, list[int]] = {}
    counted: set[tuple[str, int]] = set()
    server, before = "", ""
    for number, line in enumerate(lines):
        statement, key = open_line(line)
        made, digest = _round(statement, number)
        found = (made.round, made.previous, key)
        if found != (number, before, server or key) or not _goes_on(made, rounds):
            _refuse(
                f"does not go on from the round before at round {number}, or is another study's"
            )
        if made.before.sha256 != (models[-1] if models else ""):
            _refuse(f"does not start round {number} from the model that the round before made")
        rounds.append(made)
        models.append(digest)
        for site, own in _parts(made, rounds):
            if (site, own) in counted:
                _refuse(f"counts a part twice that a site signed of round {own}, at round {number}")
            counted.add((site, own))
            sites.setdefault(site, []).append(number)
        server, before = key, line_hash(line)
    mean = rounds[-1].mean
    released = models[-1] if mean is None else mean.sha256
    if (released, len(models) - 1, rounds[-1].study) != (model, kept, study):
        _refuse("does not lead to these weights: they are another model's")
    return Lineage(
        len(models) - 1,
        server,
        {site: tuple(numbers) for site, numbers in sites.items()},
        sum(made.unsigned for made in rounds),
        rounds[-1].strategy,
        tuple(dict.fromkeys(f"{one.wardround}, code {one.code.sha256}" for one in rounds)),
    )


def lineage_words(lineage: Lineage | None) -> tuple[str, ...]:
    """Return what a card says of a record; nothing where there is none."""
    if lineage is None:
        return ()
    signed = sum(len(rounds) for rounds in lineage.sites.values())
    return (
        f"{lineage.rounds} rounds, each signed by the server's key {lineage.server}",
        f"{len(lineage.sites)} sites signed {signed} updates; {lineage.unsigned} are unsigned",
        "'wardround model verify' checks it, offline",
    )


def _goes_on(made: _RoundPredicate, rounds: Sequence[_RoundPredicate]) -> bool:
    """Return whether a round is of the run before it, or says that it goes on from that one's."""
    if not rounds:
        return made.parent is None
    before = (rounds[-1].study, rounds[-1].run)
    if made.parent is None:
        return (made.study, made.run) == before
    is_new = made.study != before[0] and made.run != before[1]
    return is_new and (made.parent.study, made.parent.run) == before


def _round(statement: dict[str, Any], number: int) -> tuple[_RoundPredicate, str]:
    said = _read(_Statement, statement, number)
    if said.predicate_type != ROUND_TYPE or said.subject[0].name != "model":
        _refuse(f"holds a statement of another kind at round {number}")
    return _read(_RoundPredicate, said.predicate, number), said.subject[0].digest.sha256


def _parts(made: _RoundPredicate, rounds: Sequence[_RoundPredicate]) -> list[tuple[str, int]]:
    """Return the sites' keys of a round, whose parts must be of this run and of models sent.

    Returns:
        Of each its key, and the round that it signed.
    """
    keys, signed = [], []
    for envelope in made.receipts:
        statement, key = open_envelope(envelope)
        said = _read(_Statement, statement, made.round)
        part = _read(_SitePredicate, said.predicate, made.round)
        is_of_run = (part.study, part.run) == (made.study, made.run)
        is_sent = part.round <= made.round and part.model.sha256 in rounds[part.round].sent
        if said.predicate_type != SITE_TYPE or not is_of_run or not is_sent:
            _refuse(f"holds a site's part of another run or model at round {made.round}")
        keys.append(key)
        signed.append(part.round)
    if keys != made.sites or len(set(keys)) != len(keys):
        _refuse(f"names other sites than those that signed round {made.round}")
    return list(zip(keys, signed, strict=True))


def _read(model: type[_Model], content: Any, number: int) -> _Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = printable(".".join(map(str, first["loc"])), 100)
        _refuse(f"holds what no statement has at round {number} ({where})")


def _refuse(words: str) -> NoReturn:
    msg = f"{LINEAGE_FILE} of the model {words}: ask for the model again where you got it."
    raise ModelError(msg)
