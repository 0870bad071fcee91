"""Enrolment, as a Starlette application below ``/wardround/enrol``.

``GET ca`` and ``POST join`` are for a valid invitation, ``POST renew`` and ``GET status`` for a
valid site, as the certificate of the TLS connection says; ``GET ca`` answers either. What is
refused is refused in one word of a closed set; no text of an error leaves. ``common.enrolment``
says what protects what.
"""

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

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

Asked = TypeVar("Asked", bound=BaseModel)
_BODY_SECONDS = 10.0
_AT_A_TIME = 2  # of the invited; and as many of sites, who need not wait behind the invited
_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.UNUSABLE: 400,
    Reason.UNREADY: 503,
    Reason.TOO_MANY: 429,
}
_REFUSED = 403
_NOT_FOUND, _WRONG_METHOD = 404, 405


def enrolment_app(folder: Path, gate: CertificateGate | None = None) -> Starlette:
    """Return the application of a server folder.

    Args:
        gate: That of the server, if it has one already.

    Raises:
        InputError: The CA's certificate cannot be read.
    """
    enrolment = _Enrolment(folder, gate or CertificateGate(folder))
    invited, sites = asyncio.Semaphore(_AT_A_TIME), asyncio.Semaphore(_AT_A_TIME)
    app = Starlette(
        routes=[
            _route("GET", CA_PATH, enrolment.show_ca, invited),
            _route("GET", STATUS_PATH, enrolment.show_status, sites),
            _route("POST", JOIN_PATH, enrolment.join, invited),
            _route("POST", RENEW_PATH, enrolment.renew, sites),
        ],
        exception_handlers={_NOT_FOUND: _refuse_unknown, _WRONG_METHOD: _refuse_unknown},
    )
    app.router.redirect_slashes = False  # a path is known, or it is not
    return app


def _route(
    method: str, path: str, reply: Callable[[bytes, bytes], BaseModel], turns: asyncio.Semaphore
) -> Route:
    """Return a route whose work is done in a thread.

    Args:
        reply: Takes the caller's certificate (DER) and the request's body.
        turns: How many work at a time; the others wait, and keep no thread from the studies.
    """

    async def endpoint(request: HttpRequest) -> JSONResponse:
        try:
            peer = peer_der(request.scope)
            if peer is None:
                raise RefusedError(Reason.NOT_INVITED)
            body = await _read_body(request)
            async with turns:
                return _json(200, await asyncio.to_thread(reply, peer, body))
        except RefusedError as error:
            logger.warning("refused=%s path=%s", error.reason, path)
            return _refusal(_STATUS.get(error.reason, _REFUSED), error.reason)
        except Exception as error:
            # Starlette's own handler of all errors would raise it again, and uvicorn log it twice.
            logger.error("enrolment failed: %s", type(error).__name__, exc_info=True)
            return _refusal(_STATUS[Reason.UNREADY], Reason.UNREADY)

    route = Route(path, endpoint, methods=[method])
    route.methods = {method}  # without HEAD, which Starlette adds to GET
    return route


async def _refuse_unknown(request: HttpRequest, error: Exception) -> JSONResponse:
    return _refusal(_NOT_FOUND, Reason.UNUSABLE)


class _Enrolment:
    """What each question is answered, for the certificate that it came with."""

    def __init__(self, folder: Path, gate: CertificateGate) -> None:
        self._folder, self._gate = folder, gate

    def show_ca(self, peer: bytes, body: bytes) -> Reply:
        """Return the CA's certificate, to the invited and to sites."""
        if self._gate.check_invitation(peer) is None and self._gate.check(peer) is None:
            raise RefusedError(Reason.NOT_INVITED)
        return Reply(certificate=(self._folder / CA_FOLDER / CA_CERTIFICATE).read_text())

    def show_status(self, peer: bytes, body: bytes) -> ServerStatus:
        """Return what a site may know of the server."""
        flower = version("flwr")
        return ServerStatus(site=self._site(peer), wardround=wardround.__version__, flwr=flower)

    def join(self, peer: bytes, body: bytes) -> Reply:
        """Return a new site's certificate."""
        invitation = self._gate.check_invitation(peer)
        if invitation is None:
            raise RefusedError(Reason.NOT_INVITED)
        asked = _parse(JoinRequest, body)
        key = _requested_key(asked, invitation.name)
        node_key = _node_key(asked)
        certificate = admit(self._folder, invitation.serial, key, node_key)
        logger.info("joined site=%s", invitation.name)
        return Reply(certificate=certificate)

    def renew(self, peer: bytes, body: bytes) -> Reply:
        """Return one more certificate of a site."""
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


async def _read_body(request: HttpRequest) -> bytes:
    """Return a request's body, if it is small and comes soon."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LARGEST_BODY:
                    raise RefusedError(Reason.TOO_LARGE)
    except (TimeoutError, ClientDisconnect):
        raise RefusedError(Reason.UNUSABLE) from None
    return bytes(body)


def _refusal(status: int, reason: Reason) -> JSONResponse:
    return _json(status, Refused(refused=reason))


def _json(status: int, content: BaseModel) -> JSONResponse:
    return JSONResponse(content.model_dump(), status)
