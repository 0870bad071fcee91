"""Enrolment, as a small ASGI application below ``/wardround/enrol``.

``GET ca`` and ``POST join`` are for a valid invitation, ``POST renew`` and ``GET status`` for a
valid site, as the certificate of the TLS connection says; ``GET ca`` answers either. What is
refused is refused in one word of a closed set; no text of an error leaves. ``common.enrolment``
says what protects what.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ValidationError

import wardround
from wardround.common.security.enrolment import (
    CA_PATH,
    JOIN_PATH,
    LARGEST_BODY,
    RENEW_PATH,
    STATUS_PATH,
    JoinRequest,
    Reason,
    Refused,
    Reply,
    Request,
    ServerStatus,
    is_signed_by_node,
)
from wardround.common.security.tls_key_pair import public_pem
from wardround.server.identity.certificate_gate import CertificateGate
from wardround.server.identity.invitations import RefusedError, admit, renew
from wardround.server.identity.peer_certificate import peer_der
from wardround.server.identity.pki import CA_CERTIFICATE, CA_FOLDER, read_request

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Asked = TypeVar("Asked", bound=BaseModel)
_BODY_SECONDS = 10.0
_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.UNUSABLE: 400,
    Reason.UNREADY: 503,
    Reason.TOO_MANY: 429,
}
_REFUSED = 403
_NOT_FOUND = 404


def enrolment_app(folder: Path, gate: CertificateGate | None = None) -> AsgiApp:
    """Return the application of a server folder.

    Args:
        gate: That of the server, if it has one already.

    Raises:
        InputError: The CA's certificate cannot be read.
    """
    return _Enrolment(folder, gate or CertificateGate(folder))


class _Enrolment:
    """Routes, limits and refusals; the work is done in a thread."""

    def __init__(self, folder: Path, gate: CertificateGate) -> None:
        self._folder, self._gate = folder, gate
        self._replies: Mapping[tuple[str, str], Callable[[bytes, bytes], BaseModel]] = {
            ("GET", CA_PATH): self._show_ca,
            ("GET", STATUS_PATH): self._show_status,
            ("POST", JOIN_PATH): self._join,
            ("POST", RENEW_PATH): self._renew,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        reply = self._replies.get((scope["method"], scope["path"]))
        if reply is None:
            await _send(send, _NOT_FOUND, Refused(refused=Reason.UNUSABLE))
            return
        try:
            peer = peer_der(scope)
            if peer is None:
                raise RefusedError(Reason.NOT_INVITED)
            body = await _read_body(receive)
            await _send(send, 200, await asyncio.to_thread(reply, peer, body))
        except RefusedError as error:
            logger.warning("refused=%s path=%s", error.reason, scope["path"])
            await _send(send, _STATUS.get(error.reason, _REFUSED), Refused(refused=error.reason))
        except Exception as error:
            logger.error("enrolment failed: %s", type(error).__name__, exc_info=True)
            await _send(send, _STATUS[Reason.UNREADY], Refused(refused=Reason.UNREADY))

    def _show_ca(self, peer: bytes, body: bytes) -> Reply:
        if self._gate.check_invitation(peer) is None and self._gate.check(peer) is None:
            raise RefusedError(Reason.NOT_INVITED)
        return Reply(certificate=(self._folder / CA_FOLDER / CA_CERTIFICATE).read_text())

    def _show_status(self, peer: bytes, body: bytes) -> ServerStatus:
        flower = version("flwr")
        return ServerStatus(site=self._site(peer), wardround=wardround.__version__, flwr=flower)

    def _join(self, peer: bytes, body: bytes) -> Reply:
        invitation = self._gate.check_invitation(peer)
        if invitation is None:
            raise RefusedError(Reason.NOT_INVITED)
        asked = _parse(JoinRequest, body)
        key = _requested_key(asked, invitation.name)
        node_key = _node_key(asked)
        certificate = admit(self._folder, invitation.serial, key, node_key)
        logger.info("joined site=%s", invitation.name)
        return Reply(certificate=certificate)

    def _renew(self, peer: bytes, body: bytes) -> Reply:
        site = self._site(peer)
        key = _requested_key(_parse(Request, body), site)
        certificate = renew(self._folder, site, key)
        logger.info("renewed site=%s", site)
        return Reply(certificate=certificate)

    def _site(self, peer: bytes) -> str:
        site = self._gate.check(peer)
        if site is None:
            raise RefusedError(Reason.NOT_A_SITE)
        return site


def _parse(model: type[Asked], body: bytes) -> Asked:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        raise RefusedError(Reason.UNUSABLE) from None


def _requested_key(asked: Request, site: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request that is signed with it and names the site."""
    found = read_request(asked.request)
    if found is None:
        raise RefusedError(Reason.UNUSABLE)
    name, key = found
    if name != site:
        raise RefusedError(Reason.WRONG_NAME)
    return key


def _node_key(asked: JoinRequest) -> str:
    """Return the node key in the one way that it is written, if its holder asks."""
    try:
        key = load_pem_public_key(asked.node_key.encode())
    except ValueError:
        raise RefusedError(Reason.UNUSABLE) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise RefusedError(Reason.UNUSABLE)
    if not is_signed_by_node(key, asked.request, asked.node_signature):
        raise RefusedError(Reason.UNUSABLE)
    return public_pem(key).decode()


async def _read_body(receive: Receive) -> bytes:
    """Return a request's body, if it is small and comes soon."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise RefusedError(Reason.TOO_LARGE)
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RefusedError(Reason.UNUSABLE) from None


async def _send(send: Send, status: int, content: BaseModel) -> None:
    body = json.dumps(content.model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
