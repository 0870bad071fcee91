"""The certificate of a withdrawal: what was repeated, from where, and what the new model is.

One in-toto statement about the new model, in a DSSE envelope, signed by the server that repeated
the rounds. The signed request is inside, so that one file says who asked and what was done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.common.errors import InputError, ModelError
from wardround.common.runtime.fields import OfForm
from wardround.common.security.lineage import open_line, sign_statement, statement_about
from wardround.common.security.withdrawal.request import (
    LATEST,
    Hex,
    SignedRequest,
    Without,
    open_request,
)

CERTIFICATE_TYPE = "urn:wardround:withdrawal:certificate:1"
CERTIFICATE_FILE = "withdrawal.json"
LARGEST_CERTIFICATE = 2**20  # bytes
_HexOrNone = Annotated[str, OfForm("^([0-9a-f]{64})?$", "64 hexadecimal digits or none")]
_Run = Annotated[str, OfForm("^[0-9a-f]{32}$", "32 hexadecimal digits")]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Line = Annotated[str, Field(max_length=1_000)]
_Lines = Annotated[list[_Line], Field(max_length=100)]
_Keys = Annotated[list[Hex], Field(max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RunRounds(_Part):
    """A run of a study, by what tells it from any other.

    Attributes:
        study: The study's digest.
        rounds: How many it had committed.
    """

    study: Hex
    run: _Run
    rounds: _Count


class Checkpoint(_Part):
    """The last model without the one that left.

    Attributes:
        round: After which it was made; 0 where training began anew.
        model: Its digest.
        line: SHA-256 of the line of the record that made it; "" where nobody signed one.
    """

    round: _Count
    model: Hex
    line: _HexOrNone = ""


class RepeatedRound(_Part):
    """A round that was trained again.

    Attributes:
        line: SHA-256 of its line of the record, which holds the model that it made.
    """

    round: _Count
    line: Hex


class RevokedModel(_Part):
    """A model that has the one that left in it, and should be used no more."""

    study: Hex
    model: Hex
    round: _Count


class WithdrawalCertificate(_Part):
    """What a server signs of a withdrawal.

    Attributes:
        model: Digest of the model that the repeat ended with.
        request: The line of the signed request.
        parent: The run that had the one that left.
        repeat: The run that has not.
        checkpoint: From which it was trained.
        repeated: The rounds since, where the rounds are signed; else only how many there are is
            known, from ``repeat``.
        sites: The keys that signed a part of the repeated rounds.
        revoked: The models that had been made with the one that left.
        is_exact: Whether the model is to the bit the one of a run that never had the one that left.
        why: Under which conditions it is, or why it is not.
        method: "retrained" for rounds trained again by the sites; else the name of an
            approximation.
        wardround: The version that repeated, and the digest of its code.
        time: Seconds since 1970.
    """

    model: Hex
    request: Annotated[str, Field(max_length=8_192)]
    parent: RunRounds
    repeat: RunRounds
    checkpoint: Checkpoint
    repeated: Annotated[list[RepeatedRound], Field(max_length=100_000)]
    sites: _Keys
    revoked: Annotated[list[RevokedModel], Field(max_length=10_000)]
    is_exact: bool
    why: _Lines
    method: Annotated[str, Field(max_length=64)] = "retrained"
    wardround: _Line
    time: Annotated[int, Field(ge=0, le=LATEST)]


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A certificate whose signatures were verified.

    Attributes:
        server: The key that signed it, 64 hexadecimal digits.
    """

    said: WithdrawalCertificate
    request: SignedRequest
    server: str

    @property
    def without(self) -> Without:
        """What left."""
        return self.request.asked.without


def sign_certificate(key: Ed25519PrivateKey, said: WithdrawalCertificate) -> bytes:
    """Return a certificate, signed, without a newline."""
    predicate = said.model_dump(mode="json", exclude={"model"})
    return sign_statement(key, statement_about("model", said.model, CERTIFICATE_TYPE, predicate))


def read_certificate(path: Path) -> SignedCertificate:
    """Return the certificate in a file, once it was verified.

    Raises:
        InputError: It cannot be read, is none, or anything of it was changed.
    """
    try:
        if path.stat().st_size > LARGEST_CERTIFICATE:
            _refuse(f"is longer than {LARGEST_CERTIFICATE} bytes")
        return open_certificate(path.read_bytes())
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): give the file of a certificate."
        raise InputError(msg) from None


def open_certificate(content: bytes) -> SignedCertificate:
    """Return a certificate, once it was verified: its spelling, both signatures, its rounds.

    Args:
        content: Of the file; one newline may end it.

    Raises:
        InputError: It is none, or anything of it was changed.
    """
    if len(content) > LARGEST_CERTIFICATE:
        _refuse(f"is longer than {LARGEST_CERTIFICATE} bytes")
    try:
        statement, server = open_line(content.removesuffix(b"\n"))
        said = WithdrawalCertificate.model_validate(_content(statement))
    except ModelError:
        _refuse("was changed after it was signed, or was never signed")
    except (ValidationError, KeyError, TypeError, ValueError, RecursionError):
        _refuse("says something else than a certificate does")
    found = SignedCertificate(said, open_request(said.request.encode()), server)
    _check(found)
    return found


def _content(statement: dict[str, Any]) -> dict[str, Any]:
    (subject,) = statement["subject"]
    digest, predicate = str(subject["digest"]["sha256"]), statement["predicate"]
    if statement != statement_about("model", digest, CERTIFICATE_TYPE, predicate):
        raise ValueError
    return {**predicate, "model": digest}


def _check(found: SignedCertificate) -> None:
    """Refuse a certificate that contradicts itself."""
    said, asked = found.said, found.request.asked
    if asked.study != said.parent.study:
        _refuse("is of another study than the request in it")
    if said.repeat.study == said.parent.study or said.repeat.run == said.parent.run:
        _refuse("names one run twice, so that nothing was repeated")
    if asked.by == "site" and asked.without == "site" and found.request.key in said.sites:
        _refuse("counts the site that left among those that trained again")
    first = said.checkpoint.round + 1
    numbers = [one.round for one in said.repeated]
    if numbers and numbers != list(range(first, said.repeat.rounds + 1)):
        _refuse("leaves a round out of those that were repeated")


def _refuse(words: str) -> NoReturn:
    msg = f"the certificate {words}: ask for it again where you got it."
    raise InputError(msg) from None
