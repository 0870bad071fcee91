"""The gates before the link: what each listener lets through, and nothing else.

The public listener passes the Fleet API, the health check and finished models to sites, and
enrolment to whoever holds a certificate of the consortium. The inner listener, on the loopback
alone, passes what the process of a study needs, to those that know the secret of this start.

A gate decides by the path itself and not by Starlette's routes: those answer 404, 405 or a redirect
before anybody was asked who they are, and cost every message of a site a search.
"""

import base64
import binascii
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from wardround.common.errors import RunError
from wardround.common.flower.environment import (
    FLOWER_HEADER,
    INSTALL_FLOWER,
    TESTED_FLOWER,
    is_tested_flower,
    plain_version,
)
from wardround.common.flower.superlink.http_app import NODE_KEY_HEADER, SuperLink
from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.node_ids import MemberLookup
from wardround.common.flower.superlink.routes import FLEET, START, TASK
from wardround.common.security.enrolment import PREFIX as ENROLMENT
from wardround.common.security.released_model import asked_study
from wardround.common.security.withdrawal.request import WITHDRAWALS_PATH
from wardround.server.identity.peer_certificate import peer_der
from wardround.server.link.finished_models import FinishedModels
from wardround.server.link.request_body import LARGEST_REQUEST, BodyReader
from wardround.server.link.withdrawals import Withdrawals

SECRET_HEADER = "x-wardround-secret"
SITES_PATH = "/wardround/sites"
_HEALTH = "/health"
_FORBIDDEN, _TOO_SLOW, _OTHER_FLOWER, _TOO_LARGE, _UNREADY = 403, 408, 412, 413, 503
_WORDS = {
    _FORBIDDEN: "forbidden",
    _TOO_SLOW: "slow",
    _OTHER_FLOWER: "flower-version",
    _TOO_LARGE: "length",
    _UNREADY: "unready",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desks:
    """What members ask for beside the rounds.

    Attributes:
        models: Of finished studies.
        withdrawals: Who leaves a study.
    """

    models: FinishedModels
    withdrawals: Withdrawals

    def choose(self, site: str, path: str, method: str) -> ASGIApp | None:
        """Return what answers a member; None where nothing does."""
        asked = asked_study(path)
        if asked is not None and method == "GET":
            return self.models.answer(site, *asked)
        if path == WITHDRAWALS_PATH and method == "POST":
            return partial(self.withdrawals.answer, site)
        return None


class PublicGate:
    """What a hospital, or anybody else on the network, reaches."""

    def __init__(
        self,
        link: SuperLink,
        members: MemberLookup,
        site_of_certificate: Callable[[bytes], str | None],
        enrolment: ASGIApp,
        silence_seconds: float,
        desks: Desks,
    ) -> None:
        """Put the gate before a link.

        Args:
            site_of_certificate: Whose a client certificate (DER) is, None if nothing may pass.
            enrolment: What answers below ``/wardround/enrol``; it checks certificates itself.
            silence_seconds: How long no byte may come of a body that is not there yet.
            desks: What else members ask for.
        """
        self._link, self._members = link, members
        self._site_of_certificate = site_of_certificate
        self._enrolment = enrolment
        self._desks = desks
        self._body = BodyReader(_refusal, silence_seconds)
        self._with_other_flower: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            await self._choose(scope)(scope, receive, send)

    def _choose(self, scope: Scope) -> ASGIApp:
        """Return what answers a request."""
        path, peer = str(scope["path"]), peer_der(scope)
        if path.startswith(f"{ENROLMENT}/"):
            return self._enrolment
        site = None if peer is None else self._site_of_certificate(peer)
        if site is None:
            return _refusal(_FORBIDDEN)
        if path == _HEALTH and scope["method"] == "GET":
            return JSONResponse({"status": "ok"})
        if path in FLEET and scope["method"] == "POST":
            return self._fleet(site, scope)
        return self._desks.choose(site, path, scope["method"]) or _refusal(_FORBIDDEN)

    def _fleet(self, site: str, scope: Scope) -> ASGIApp:
        """Let a site use its own node key, and no other's."""
        key = _node_key(scope)
        try:
            is_own = key is not None and self._members.site_of(key) == site
        except RunError as error:
            logger.error("%s", error)
            return _refusal(_UNREADY)
        if not is_own:
            return _refusal(_FORBIDDEN)
        if not self._has_tested_flower(site, scope):
            return _refusal(_OTHER_FLOWER, {FLOWER_HEADER: version("flwr")})
        if not 0 <= _length(scope) <= LARGEST_REQUEST:
            return _refusal(_TOO_LARGE)
        return partial(self._body.pass_on, self._link.answer_site)

    def _has_tested_flower(self, site: str, scope: Scope) -> bool:
        """Whether a site's Flower is one that was tested; once a site, say that it is not."""
        said = _header(scope, FLOWER_HEADER.encode())
        if said is None or is_tested_flower(said.decode("latin-1")):
            self._with_other_flower.discard(site)
            return True
        if site not in self._with_other_flower:
            self._with_other_flower.add(site)
            logger.warning(
                "refused site=%s: it runs flwr %s, the server %s; with flwr %s at both they work "
                "together: there, %s.",
                site,
                plain_version(said.decode("latin-1")),
                version("flwr"),
                " or ".join(TESTED_FLOWER),
                INSTALL_FLOWER,
            )
        return False


class InnerGate:
    """What the server's own processes reach."""

    def __init__(
        self, link: SuperLink, state: LinkState, secret: str, left: Mapping[str, float]
    ) -> None:
        """Put the gate before a link.

        Args:
            left: Sites that have no connection open any more, and since when.
        """
        self._link, self._state, self._secret = link, state, secret.encode()
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            await self._choose(scope)(scope, receive, send)

    def _choose(self, scope: Scope) -> ASGIApp:
        """Return what answers a request."""
        given = _header(scope, SECRET_HEADER.encode()) or b""
        if not hmac.compare_digest(given, self._secret):
            return _refusal(_FORBIDDEN)
        if scope["path"] == SITES_PATH:
            return JSONResponse(_connected(self._state, self._left))
        if scope["path"] in START or scope["path"] in TASK:
            return self._link.answer_study
        return _refusal(_FORBIDDEN)


def _connected(state: LinkState, left: Mapping[str, float]) -> dict[str, list[dict[str, object]]]:
    nodes: list[dict[str, object]] = [
        {"site": node.name, "status": node.status, "left": left.get(node.name)}
        for node in sorted(state.connected_sites(), key=lambda node: node.name)
    ]
    return {"sites": nodes}


def _node_key(scope: Scope) -> bytes | None:
    try:
        return base64.b64decode(_header(scope, NODE_KEY_HEADER.encode()) or b"", validate=True)
    except binascii.Error:
        return None


def _length(scope: Scope) -> int:
    """Return a request's declared length; -1 if it declares none, which no site of ours does.

    One that comes in chunks declares none: beside them ``Content-Length`` is not what comes.
    """
    text = _header(scope, b"content-length") or b""
    is_chunked = any(key == b"transfer-encoding" for key, _ in scope["headers"])
    return int(text) if text.isdigit() and not is_chunked else -1


def _header(scope: Scope, name: bytes) -> bytes | None:
    """Return a header's value; None if it is absent or there twice."""
    values = [bytes(value) for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else None


def _refusal(status: int, more: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a refusal; it ends the connection, so that no body comes that nobody reads."""
    headers = {"connection": "close", **(more or {})}
    return JSONResponse({"refused": _WORDS[status]}, status, headers)
