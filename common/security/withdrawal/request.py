"""A request to leave a study: signed by the site that leaves, or whose patients do.

It is an in-toto statement about the study in a DSSE envelope, as the lines of a model's record are.
It names a site and no patient, nor how many: a hospital tells nobody who left it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.common.errors import InputError, ModelError
from wardround.common.runtime.fields import OfForm
from wardround.common.security.lineage import open_line, sign_statement, statement_about

Without = Literal["site", "patients"]
Hex = Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")]
WITHDRAWALS_PATH = "/wardround/withdrawals"
REQUEST_TYPE = "urn:wardround:withdrawal:request:1"
LARGEST_REQUEST = 8_192  # bytes
LATEST = 2**40  # seconds since 1970


class WithdrawalRequest(BaseModel):
    """What is asked.

    Attributes:
        study: Its digest.
        site: Which site leaves it, or has patients who do.
        server: Tells the consortium from another, as ``site.toml`` does; "" in a simulation.
        without: What leaves.
        by: Who asks: the site itself, or the operator in its place.
        time: Seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    study: Hex
    site: Annotated[str, Field(min_length=1, max_length=256)]
    server: Annotated[str, Field(max_length=128)]
    without: Without
    by: Literal["site", "operator"] = "site"
    time: Annotated[int, Field(ge=0, le=LATEST)]


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request whose signature was verified.

    Attributes:
        key: The public key that signed it, 64 hexadecimal digits.
        line: The envelope, as it is spelt.
    """

    asked: WithdrawalRequest
    key: str
    line: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the envelope."""
        return hashlib.sha256(self.line).hexdigest()


class WithdrawalAnswer(BaseModel):
    """What a server answers a site that asks.

    Attributes:
        state: Of the repeat: "noted" until an operator begins it; then how its run stands.
        study: The digest of the study that repeats the rounds; "" until there is one.
        certificate: Its line; "" until the rounds are repeated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    state: Annotated[str, Field(max_length=64)]
    study: Annotated[str, OfForm("^([0-9a-f]{64})?$", "64 hexadecimal digits or none")] = ""
    certificate: Annotated[str, Field(max_length=2**20)] = ""


def sign_request(key: Ed25519PrivateKey, asked: WithdrawalRequest) -> SignedRequest:
    """Return a request, signed."""
    predicate = asked.model_dump(mode="json", exclude={"study"})
    statement = statement_about("study", asked.study, REQUEST_TYPE, predicate)
    line = sign_statement(key, statement)
    return SignedRequest(asked, key.public_key().public_bytes_raw().hex(), line)


def open_request(line: bytes) -> SignedRequest:
    """Return a request, once its signature was verified.

    Raises:
        InputError: It is none, was changed, or is not spelt in its one spelling.
    """
    if len(line) > LARGEST_REQUEST:
        _refuse(f"is longer than {LARGEST_REQUEST} bytes")
    try:
        statement, key = open_line(line)
        asked = WithdrawalRequest.model_validate(_content(statement, REQUEST_TYPE, "study"))
    except ModelError:
        _refuse("was changed after it was signed, or was never signed")
    except (ValidationError, KeyError, TypeError, ValueError):
        _refuse("says something else than such a request does")
    return SignedRequest(asked, key, line)


def _content(statement: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    (subject,) = statement["subject"]
    digest = str(subject["digest"]["sha256"])
    content = {**statement["predicate"], "study": digest}
    if statement != statement_about(name, digest, kind, statement["predicate"]):
        raise ValueError
    return content


def _refuse(words: str) -> NoReturn:
    msg = f"the request to leave a study {words}: 'wardround site withdraw' makes one."
    raise InputError(msg) from None


def consortium_of(certificate: bytes) -> str:
    """Return what tells a consortium from any other: SHA-256 of its CA certificate.

    Args:
        certificate: In PEM.

    Raises:
        InputError: It is none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        msg = "the consortium's certificate cannot be read: put ca.crt back from a backup."
        raise InputError(msg) from None
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
