"""Flower's SuperLink inside a process of ours: its handlers over HTTP, for sites and for studies.

On the wire this is Flower's Fleet API, and of its Runtime and Control API what a study's process
calls. Flower's own HTTP app serves all of its APIs to whoever reaches it and has nine layers before
a handler; here the handlers are called directly, and a question for post is held for a moment
instead of being asked again and again. Together that is a fifth of the CPU.

Written against Flower 1.41; ``tests/unit/common/flower/superlink/test_wire.py`` holds the contract.
"""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from flwr.common.constant import TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TASK_TOKEN_HEADER,
)
from flwr.supercore.date import now
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import DecodeError
from starlette.types import Receive, Scope, Send

from wardround.common.flower.superlink.link_state import LinkState
from wardround.common.flower.superlink.long_polling import HELD_HEADER, Wakeups
from wardround.common.flower.superlink.routes import FLEET, START, TASK, Call, NotAllowedError

Headers: TypeAlias = Mapping[str, str]

logger = logging.getLogger(__name__)
NODE_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower()
HELD_SECONDS = 2.0  # a question for post where there is none
_NOBODY, _FAULT = 401, 500


class _Work:
    """One call, done in a thread, as often as it is asked again while it is held."""

    def __init__(
        self,
        reply: Callable[[Any, LinkState, Any], Any],
        request: Any,
        state: LinkState,
        identify: Callable[[], Any],
    ) -> None:
        self._reply, self._request, self._state = reply, request, state
        self._identify = identify
        self._caller: Any = None

    def key(self) -> int:
        """Identify the caller, and return whose post it asks for."""
        self._caller = caller = self._identify()
        return int(caller if isinstance(caller, int) else caller.run_id)

    def __call__(self) -> Any:
        """Return the reply."""
        caller = self._identify() if self._caller is None else self._caller
        return self._reply(self._request, self._state, caller)


class SuperLink:
    """Answers sites and studies from a state; what it is asked has passed a gate."""

    def __init__(self, state: LinkState, wakeups: Wakeups) -> None:
        self._state, self._wakeups = state, wakeups

    async def answer_site(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call of the Fleet API."""
        await self._serve(FLEET[scope["path"]], self._node, scope, receive, send)

    async def answer_study(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call of a study's process."""
        path = scope["path"]
        if path in START:
            await self._serve(START[path], lambda *_: None, scope, receive, send)
        else:
            await self._serve(TASK[path], self._task, scope, receive, send)

    async def _serve(
        self,
        call: Call,
        identify: Callable[[Headers, Any], Any],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        try:
            request = call.request.FromString(await _read(receive))
            work = _Work(call.reply, request, self._state, lambda: identify(headers, request))
            is_held = call.held == "always" or (call.held == "asked" and HELD_HEADER in headers)
            reply = await (self._hold(work, receive) if is_held else asyncio.to_thread(work))
        except Exception as error:
            await _fail(scope, send, error)
            return
        await _send(send, 200, PROTOBUF_MEDIA_TYPE, reply.SerializeToString())

    async def _hold(self, work: "_Work", receive: Receive) -> Any:
        """Answer a question for post when there is some, or after a moment."""
        gone = asyncio.ensure_future(receive())
        until = asyncio.get_running_loop().time() + HELD_SECONDS
        try:
            key = await asyncio.to_thread(work.key)
            while True:
                heard = self._wakeups.listen(key)
                try:
                    reply = await asyncio.to_thread(work)
                    left = until - asyncio.get_running_loop().time()
                    if reply.messages_list or left <= 0 or gone.done():
                        return reply
                    either: set[asyncio.Future[Any]] = {heard, gone}
                    await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self._wakeups.leave(key, heard)
        finally:
            gone.cancel()

    def _node(self, headers: Headers, request: Any) -> int:
        """Return the number of the node that signed a request, if the request is about it."""
        try:
            key = base64.b64decode(headers[NODE_KEY_HEADER], validate=True)
            signature = base64.b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            text = headers[TIMESTAMP_HEADER]
            age = (now() - datetime.fromisoformat(text)).total_seconds()
            # Flower's own takes a clock that is behind, and none that is six seconds ahead.
            if abs(age) > TIMESTAMP_TOLERANCE:
                raise NotAllowedError
            if not verify_signature(bytes_to_public_key(key), text.encode("ascii"), signature):
                raise NotAllowedError
        except (KeyError, ValueError, TypeError, binascii.Error):
            raise NotAllowedError from None
        node_id = self._state.get_node_id_by_public_key(key)
        if node_id is None or not _is_about(request, node_id, key):
            raise NotAllowedError
        if isinstance(request, PullMessagesRequest):
            self._state.note_presence(node_id)
        return node_id

    def _task(self, headers: Headers, _: Any) -> Any:
        """Return the task whose token a request shows."""
        task = self._state.get_task_by_token(headers.get(TASK_TOKEN_HEADER, ""))
        if task is None:
            raise NotAllowedError
        return task


def _is_about(request: Any, node_id: int, key: bytes) -> bool:
    if isinstance(request, ActivateNodeRequest):
        return bool(request.public_key == key)
    named = request.node_id if isinstance(request, DeactivateNodeRequest) else request.node.node_id
    return bool(named == node_id)


async def _read(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _fail(scope: Scope, send: Send, error: Exception) -> None:
    """Say what is wrong as Flower says it: a number and a fixed sentence."""
    if isinstance(error, NotAllowedError):
        await _send_json(send, _NOBODY, {"detail": "Invalid authentication"})
        return
    if isinstance(error, DecodeError):
        await _send_json(send, 400, {"detail": "Invalid protobuf payload"})
        return
    known = API_ERROR_MAP.get(error.code) if isinstance(error, FlowerError) else None
    if isinstance(error, FlowerError) and known is not None:
        logger.info("refused path=%s code=%d", scope["path"], error.code)
        await _send_json(send, known.http_status_code, error.to_json(known.public_message))
        return
    logger.error("failed path=%s: %s", scope["path"], type(error).__name__, exc_info=error)
    await _send_json(send, _FAULT, {"detail": "Internal server error."})


async def _send_json(send: Send, status: int, content: object) -> None:
    await _send(send, status, "application/json", json.dumps(content).encode())


async def _send(send: Send, status: int, media_type: str, body: bytes) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
