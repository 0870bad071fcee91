"""Takes a site's signed request to leave a study, and answers what has become of it.

The site is the one of the TLS certificate: a request that names another one is refused. One that is
sent again is the same request, and answered anew.
"""

import asyncio
import logging
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from wardround.common.errors import InputError
from wardround.common.security.withdrawal.request import (
    LARGEST_REQUEST,
    SignedRequest,
    WithdrawalAnswer,
    open_request,
)
from wardround.server.sites.withdrawal_requests import answer_of, keep_request

_BAD, _NONE, _OTHERS, _TOO_LARGE, _BUSY, _UNREADY = 400, 404, 403, 413, 429, 503
_WORDS = {
    _BAD: "request",
    _NONE: "no-study",
    _OTHERS: "other-site",
    _TOO_LARGE: "length",
    _BUSY: "too-many",
    _UNREADY: "unready",
}
_PATIENCE_SECONDS = 20.0

logger = logging.getLogger(__name__)


class Withdrawals:
    """The requests of a server folder's sites.

    Args:
        folder: The server's.
        name: What tells this consortium from another, as a site says it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._asking: set[str] = set()

    async def answer(self, site: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a site's request."""
        if site in self._asking:
            await _refusal(_BUSY)(scope, receive, send)
            return
        self._asking.add(site)
        try:
            response = await self._response(site, Request(scope, receive))
            await response(scope, receive, send)
        finally:
            self._asking.discard(site)

    async def _response(self, site: str, request: Request) -> JSONResponse:
        body = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > LARGEST_REQUEST:
                        return _refusal(_TOO_LARGE)
            signed = open_request(bytes(body))
        except (InputError, TimeoutError, ClientDisconnect):
            return _refusal(_BAD)
        asked = signed.asked
        if (asked.site, asked.server, asked.by) != (site, self._name, "site"):
            logger.warning("refused site=%s: its request to leave a study is not its own", site)
            return _refusal(_OTHERS)
        try:
            said = await asyncio.to_thread(self._keep, signed)
        except InputError:
            return _refusal(_NONE)
        except OSError as error:
            logger.error("a request to leave a study cannot be kept: %s", error.strerror)
            return _refusal(_UNREADY)
        return JSONResponse(said.model_dump())

    def _keep(self, signed: SignedRequest) -> WithdrawalAnswer:
        return answer_of(self._folder, keep_request(self._folder, signed))


def _refusal(status: int) -> JSONResponse:
    return JSONResponse({"refused": _WORDS[status]}, status, {"connection": "close"})
