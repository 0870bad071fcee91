"""A live page as an ASGI application: itself, its events, its actions, its files."""

import logging
from importlib import resources
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from wardround.common.errors import WardroundError, describe_defect
from wardround.common.html import read_style
from wardround.common.html.live.feed import MOST_READERS, Feed
from wardround.common.html.live.gate import LOOPBACK_NAMES, Gate, Identify
from wardround.common.html.live.page import LivePage, Told, page_html

logger = logging.getLogger(__name__)
_LARGEST_FORM = 1_000_000  # bytes: a study file is a few thousand
_MOST_FIELDS = 50


def live_app(
    page: LivePage,
    secret: str,
    names: tuple[str, ...] = LOOPBACK_NAMES,
    identify: Identify = lambda scope: "local",
    feed: Feed | None = None,
) -> ASGIApp:
    """Return the application that serves a page.

    Args:
        page: What it shows.
        secret: The first part of its path, at least 128 random bits; "" only where ``identify``
            knows who asks.
        names: Host names under which it is reached.
        identify: Returns the name of who asks, None for nobody who may.
        feed: The page's feed, where its caller wants to know who reads.
    """
    return Gate(_Pages(page, feed or Feed(page)).application(), secret, names, identify)


class _Pages:
    """The answers of one page."""

    def __init__(self, page: LivePage, feed: Feed) -> None:
        self._page, self._feed = page, feed
        files = resources.files("wardround.common.html.live")
        self._script = (files / "live.js").read_text(encoding="utf-8")
        self._style = read_style() + (files / "live.css").read_text(encoding="utf-8")

    def application(self) -> Starlette:
        """Return the routes."""
        routes = [
            Route("/", self._whole),
            Route("/live.js", self._given_script),
            Route("/live.css", self._given_style),
            Route("/events", self._events),
            Route("/files/{name}", self._document),
            Route("/do/{name}", self._do, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _whole(self, request: Request) -> Response:
        return HTMLResponse(page_html(self._page, await self._feed.regions()))

    async def _given_script(self, request: Request) -> Response:
        return Response(self._script, media_type="text/javascript")

    async def _given_style(self, request: Request) -> Response:
        return Response(self._style, media_type="text/css")

    async def _events(self, request: Request) -> Response:
        if self._feed.readers >= MOST_READERS:
            text = f"{MOST_READERS} read this page already: close one of them."
            return PlainTextResponse(text, 503)
        return StreamingResponse(self._feed.messages(), media_type="text/event-stream")

    async def _document(self, request: Request) -> Response:
        find = self._page.documents.get(request.path_params["name"])
        found = None if find is None else await run_in_threadpool(find)
        if found is None:
            return PlainTextResponse("There is no such file, or not yet.", 404)
        policy = "frame-ancestors 'none'"  # beside the one that our pages have in themselves
        if not found.kind.startswith("text/html"):
            policy += "; default-src 'none'"
        return Response(
            found.content, headers={"content-type": found.kind, "content-security-policy": policy}
        )

    async def _do(self, request: Request) -> Response:
        name = request.path_params["name"]
        action = self._page.actions.get(name)
        if action is None:
            return _said("This page is for reading only.", 403)
        try:
            fields = await _fields_of(request)
        except ClientDisconnect:
            return Response()
        if fields is None:
            return _said("That is too much for one form, or no form.", 413)
        who = str(request.scope["state"]["who"])
        try:
            told = await run_in_threadpool(action, fields, who)
        except WardroundError as error:
            return _said(str(error), 409)
        except Exception as error:
            logger.exception("an action of a live page failed: %s", name)
            return _said(f"{describe_defect(error)}.", 500)
        return _answer(told)


async def _fields_of(request: Request) -> dict[str, str] | None:
    """Return a form's fields, each once; None where it is too large or has another form."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST_FORM:
            return None
    try:
        text = content.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        return None
    return dict(pairs)


def _answer(told: Told) -> Response:
    return JSONResponse({"ok": True, "said": told.sentence, "secret": told.secret})


def _said(sentence: str, status: int) -> Response:
    return JSONResponse({"ok": False, "said": sentence, "secret": ""}, status)
