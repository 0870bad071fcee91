"""The body of a site's request: counted while it comes, and dropped when it stops coming."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_REQUEST = 16 * 2**20  # bytes; Flower cuts arrays into pieces of 5 MB
_WHOLE_SECONDS = 900.0  # 5 MB at 50 kbit/s


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Passes a request on when its whole body is there; refuses it, or drops it, otherwise.

    Attributes:
        refuse: Makes what answers with a status: 413 where the body is larger than allowed,
            whatever its header said, and 408 where it does not come. It must end the connection.
        silence_seconds: How long there may be no byte.
        most_bytes: How large a body may be.
    """

    refuse: Callable[[int], ASGIApp]
    silence_seconds: float
    most_bytes: int = LARGEST_REQUEST

    async def pass_on(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and let an application answer."""
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                body = await self._read(receive)
        except TimeoutError:
            await self.refuse(408)(scope, receive, send)
            return
        except _TooLargeError:
            await self.refuse(413)(scope, receive, send)
            return
        if body is not None:
            await app(scope, _given_once(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, None if the connection was lost."""
        pieces, total = [], 0
        while True:
            async with asyncio.timeout(self.silence_seconds):
                message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            total += len(pieces[-1])
            if total > self.most_bytes:
                raise _TooLargeError
            if not message.get("more_body", False):
                return b"".join(pieces)


class _TooLargeError(Exception):
    """More came than is allowed."""


def _given_once(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read, and then whatever comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return left.pop() if left else await receive()

    return next_message
