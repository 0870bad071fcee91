"""A study's connection to a link: who it is, and how long it tries.

Where Flower retries for ever, or ends the process with a signal, this raises
:class:`LinkLostError`. Written against Flower 1.41;
``tests/unit/common/flower/superlink/test_grid.py`` holds the contract.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime import RuntimeHttpClient

from wardround.common.errors import RunError
from wardround.common.flower.response_release import Releasing
from wardround.common.flower.superlink.long_polling import HELD_HEADER

Result = TypeVar("Result")
_RETRY_SECONDS = 0.2  # a link that the supervisor starts again is back within a second
_PATIENCE_SECONDS = 300.0  # with a link that is there and does not answer
_AWAY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)


class LinkLostError(Exception):
    """The link that knew this run has gone; a run must be opened with the next one."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """How to reach a link.

    Attributes:
        host_and_port: Of its inner listener.
        header: What that wants to see: name and value.
        is_current: Whether this is still the link that runs.
        lock_path: A file that only one process holds while it takes up a run.
    """

    host_and_port: str
    header: tuple[str, str]
    is_current: Callable[[], bool]
    lock_path: Path


Client = TypeVar("Client", ControlHttpClient, RuntimeHttpClient)


def make_client(
    kind: type[Client], entrance: Entrance, interceptors: Sequence[ProtobufClientInterceptor]
) -> Client:
    """Return a client of one of Flower's APIs at a link's inner listener."""
    return kind.from_server_address(
        server_address=entrance.host_and_port,
        insecure=True,
        root_certificates=None,
        interceptors=[
            Releasing(),
            _Header(*entrance.header),
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            *interceptors,
        ],
        retry_invoker=Persistence(entrance),  # type: ignore[arg-type] # its invoke() alone is used
    )


class _Header:
    """Shows the link's secret with each request."""

    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[self._name] = self._value
        return call_next(context)


class Holding:
    """Asks the link to hold a question for answers until there is one."""

    def __init__(self) -> None:
        self.is_wanted = False

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the header to a question that is to be held."""
        if self.is_wanted and isinstance(context.message, PullAppMessagesRequest):
            context.request.headers[HELD_HEADER] = "1"
        return call_next(context)


class Persistence:
    """Calls the link until it answers, or is another one."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    def invoke(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns; Flower's retry takes its place.

        Raises:
            LinkLostError: The link has gone, or does not know this run.
            RunError: It is there and refuses, or is silent for too long.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return call()
            except httpx.HTTPStatusError as error:
                self._judge(error.response)
            except httpx.TransportError:
                if not self._entrance.is_current():
                    raise LinkLostError from None
            if time.monotonic() >= until:
                msg = "the link does not answer: look at link/link.log in the server folder."
                raise RunError(msg)
            time.sleep(_RETRY_SECONDS)

    def _judge(self, response: httpx.Response) -> None:
        """Return if the call may be made again."""
        if response.status_code in _AWAY:
            return
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise LinkLostError
        msg = (
            f"the link refuses what the study's process asks (HTTP {response.status_code}): "
            "look at link/link.log in the server folder."
        )
        raise RunError(msg)
