"""What server and site say to each other when a site joins or renews its certificate.

What protects what: TLS 1.2 or newer with certificates on both sides keeps the exchange from being
read, changed or played back, since each connection has its own keys. Joining is besides bound to
the invitation, which the server takes once: a request played back over a new connection needs the
invitation's key, and gets at most the certificate that was made for the same site key, which is
public and of no use without that key. A renewal is bound to the connection of a valid site.
No private key is part of any message.
"""

from enum import StrEnum
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field

PREFIX = "/wardround/enrol"
CA_PATH, JOIN_PATH, RENEW_PATH = f"{PREFIX}/ca", f"{PREFIX}/join", f"{PREFIX}/renew"
STATUS_PATH = f"{PREFIX}/status"
LARGEST_BODY = 16_384  # bytes, either way
_PURPOSE = b"wardround node 1\n"  # a signature for this is none for anything else

Pem = Annotated[str, Field(max_length=4096, pattern=r"^[\x0A\x0D\x20-\x7E]+$")]


class Reason(StrEnum):
    """Why a server refuses: the word that crosses the wire."""

    NOT_INVITED = "not-invited"
    USED = "used"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    WRONG_NAME = "wrong-name"
    NODE_KEY = "node-key"
    UNUSABLE = "unusable"
    NOT_A_SITE = "not-a-site"
    TOO_MANY = "too-many"
    TOO_LARGE = "too-large"
    UNREADY = "unready"


# What the site says of it.
SENTENCES: dict[Reason, str] = {
    Reason.NOT_INVITED: (
        "the server does not know this invitation: ask its operator for a new token."
    ),
    Reason.USED: (
        "the invitation was used already. If it was not used by you, tell the server's operator at "
        "once, who revokes the site; then ask for a new token."
    ),
    Reason.EXPIRED: "the invitation has expired: ask the server's operator for a new token.",
    Reason.CANCELLED: "the invitation was withdrawn: ask the server's operator for a new token.",
    Reason.WRONG_NAME: "the invitation is for another site: use this site's own token.",
    Reason.NODE_KEY: (
        "the server knows this node key under another site's name: remove keys/node.key, "
        "and join with a new token."
    ),
    Reason.UNUSABLE: (
        "the server could not use the request: compare 'wardround --version' on both sides."
    ),
    Reason.NOT_A_SITE: (
        "the server does not accept this site's certificate, which was revoked or is not its own: "
        "ask the server's operator for an invitation and join again."
    ),
    Reason.TOO_MANY: (
        "the server has given this site as many certificates as may be valid at a time: "
        "find out why it renews so often, or wait until one expires."
    ),
    Reason.TOO_LARGE: "the request is larger than any enrolment: compare 'wardround --version'.",
    Reason.UNREADY: "the server cannot answer now: try again, and look at the server's log.",
}


class Request(BaseModel):
    """What a site sends to renew its certificate.

    Attributes:
        request: A certificate signing request (PKCS #10) in PEM, whose common name is the site's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: Pem


class JoinRequest(Request):
    """What a site sends to join.

    Attributes:
        node_key: The public key by which Flower's SuperLink will know the site, in PEM.
        node_signature: Hex; the node key's signature of the signing request: the site has both.
    """

    node_key: Pem
    node_signature: Annotated[str, Field(max_length=512, pattern=r"^[0-9a-f]*$")]


class Reply(BaseModel):
    """What the server answers: the certificate, in PEM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Pem


class ServerStatus(BaseModel):
    """What the server tells a site about itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    site: Annotated[str, Field(max_length=64)]
    wardround: Annotated[str, Field(max_length=64)]
    flwr: Annotated[str, Field(max_length=64)]


class Refused(BaseModel):
    """A refusal: the word of a :class:`Reason`; a newer server may know more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    refused: Annotated[str, Field(max_length=32)]


def sign_as_node(key: ec.EllipticCurvePrivateKey, request: str) -> str:
    """Return a node key's signature of a signing request, in hex."""
    return key.sign(_PURPOSE + request.encode(), ec.ECDSA(hashes.SHA384())).hex()


def is_signed_by_node(key: ec.EllipticCurvePublicKey, request: str, signature: str) -> bool:
    """Whether a signature is that of :func:`sign_as_node`."""
    try:
        content = bytes.fromhex(signature)
        key.verify(content, _PURPOSE + request.encode(), ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True
