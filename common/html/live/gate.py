"""The gate before a live page: whose browser, from which page, and what its answers may load."""

import hmac
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Identify = Callable[[Scope], str | None]


class Gate:
    """Lets a request through to a page, or answers it.

    Whoever knows the link is let in: its path begins with a secret. A cookie would be sent to every
    program that listens on this machine, since browsers keep cookies by host and not by port.
    Another web page cannot reach the page: it does not know the path, a request with a foreign
    ``Host`` is refused (DNS rebinding), and one that would change something needs our ``Origin``
    and a header that forms cannot set.

    Args:
        inner: The page.
        secret: The first part of the path; "" where ``identify`` says who may.
        names: Under which host names it is reached.
        identify: Returns who asks, by a certificate say; None is refused.
    """

    def __init__(
        self, inner: ASGIApp, secret: str, names: tuple[str, ...], identify: Identify
    ) -> None:
        self._inner, self._secret, self._names = inner, secret, names
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request."""
        if scope["type"] != "http":
            return
        await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        inner = dict(scope)
        if self._secret:
            inner["path"] = scope["path"].removeprefix(f"/{self._secret}") or "/"
            inner["raw_path"] = inner["path"].encode()
        await self._inner(inner, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = _host_of(headers.get("host", ""))
        if host not in self._names:
            return PlainTextResponse(
                "This page is not served under that name: use the link that was printed.", 421
            )
        if self._secret and not self._knows_secret(scope["path"]):
            return PlainTextResponse(
                "This link is not the one that was printed: copy it whole. It changes with each "
                "start.",
                404,
            )
        who = self._identify(scope)
        if who is None:
            return PlainTextResponse("This certificate is not that of an operator.", 403)
        scope.setdefault("state", {})["who"] = who
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("This page is only read and posted to.", 405)
        if scope["method"] == "POST" and not _is_own_page(headers):
            return PlainTextResponse("That did not come from this page.", 403)
        return None

    def _knows_secret(self, path: str) -> bool:
        first = path.removeprefix("/").partition("/")[0]
        return "/" in path[1:] and hmac.compare_digest(first.encode(), self._secret.encode())


def _host_of(text: str) -> str:
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""


def _is_own_page(headers: Headers) -> bool:
    origin = headers.get("origin", "")
    own = urlsplit(origin).netloc == headers.get("host") and origin.partition("://")[0] in (
        "http",
        "https",
    )
    return own and headers.get("x-wardround") == "1"


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
