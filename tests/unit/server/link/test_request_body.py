"""A body is counted while it comes, and a body that stops coming is dropped."""

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from wardround.server.link import request_body
from wardround.server.link.request_body import BodyReader

READER = BodyReader(lambda status: PlainTextResponse("no", status), 0.05, most_bytes=10)


def piece(body: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def given(*messages: Message | float) -> tuple[int | None, bytes | None]:
    """Return the status of the answer, and what the application got of messages and silences."""
    left, status, got = list(messages), list[int](), list[bytes]()

    async def receive() -> Message:
        while isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))  # type: ignore[arg-type]
        return left.pop(0)  # type: ignore[return-value]

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        got.append(message["body"])
        if left:
            assert (await receive())["type"] == "http.disconnect"
        await PlainTextResponse("yes")(scope, receive, send)

    asyncio.run(READER.pass_on(app, {"type": "http"}, receive, send))
    return (status or [None])[0], (got or [None])[0]


def test_a_body_in_pieces_is_passed_on_whole_and_then_what_comes() -> None:
    assert given(piece(b"12345", True), 0.01, piece(b"67890", False)) == (200, b"1234567890")
    assert given(piece(b"", False), {"type": "http.disconnect"}) == (200, b"")


def test_a_larger_one_is_refused_as_soon_as_it_is_larger() -> None:
    assert given(piece(b"1234567890", True), piece(b"1", True)) == (413, None)


@pytest.mark.parametrize("before", [(), (piece(b"1", True),)])
def test_a_body_that_stops_coming_is_refused(before: Any) -> None:
    assert given(*before, 1.0, piece(b"", False)) == (408, None)


def test_a_body_that_comes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_WHOLE_SECONDS", 0.1)
    drops = [part for _ in range(9) for part in (piece(b"1", True), 0.03)]
    assert given(*drops, piece(b"", False)) == (408, None)


def test_nothing_of_a_connection_that_broke_is_passed_on() -> None:
    assert given(piece(b"123", True), {"type": "http.disconnect"}) == (None, None)
