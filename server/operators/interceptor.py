"""The gate before the operators' API: who may ask, and how many may watch at a time."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import BoundedSemaphore

import grpc

from wardround.server.identity.operator_access import OperatorGate

logger = logging.getLogger(__name__)
MOST_WATCHERS = 16  # each keeps a thread
# A page asks these every second: who asks them is told once in a while, not each time.
_ASKED_OFTEN = frozenset({"ListRuns", "ListSites", "ShowServer", "RecordRun", "ShowRun"})
_TELL_AGAIN_SECONDS = 600.0


class OperatorInterceptor(grpc.ServerInterceptor):  # type: ignore[misc] # grpc publishes no types
    """Lets operators in, before anything of what they ask is read, and not too many to watch."""

    def __init__(self, gate: OperatorGate | None) -> None:
        """Put a door before all services of a listener.

        Args:
            gate: Knows operators by their certificates; None where the socket's mode does.
        """
        self._gate, self._places = gate, BoundedSemaphore(MOST_WATCHERS)
        self._told: dict[tuple[str, str], float] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler behind the gate."""
        inner = continuation(details)
        if inner is None:
            return None
        kinds = {
            "request_deserializer": inner.request_deserializer,
            "response_serializer": inner.response_serializer,
        }
        if inner.response_streaming:
            stream = partial(self._streamed, details.method, inner.unary_stream)
            return grpc.unary_stream_rpc_method_handler(stream, **kinds)
        once = partial(self._once, details.method, inner.unary_unary)
        return grpc.unary_unary_rpc_method_handler(once, **kinds)

    def _once(
        self,
        method: str,
        reply: Callable[[object, grpc.ServicerContext], object],
        request: object,
        context: grpc.ServicerContext,
    ) -> object:
        self._require_operator(method, context)
        return reply(request, context)

    def _streamed(
        self,
        method: str,
        reply: Callable[[object, grpc.ServicerContext], Iterator[object]],
        request: object,
        context: grpc.ServicerContext,
    ) -> Iterator[object]:
        self._require_operator(method, context)
        if not self._places.acquire(blocking=False):
            text = f"{MOST_WATCHERS} watch already: end one of them, or ask again later."
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        try:
            yield from reply(request, context)
        finally:
            self._places.release()

    def _require_operator(self, method: str, context: grpc.ServicerContext) -> None:
        name = "local" if self._gate is None else self._operator(self._gate, context)
        if name is None:
            text = "this certificate is not that of an operator, or it was taken away."
            context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
        if self._is_to_be_told(str(name), method.rpartition("/")[2]):
            logger.info("operator=%s method=%s", name, method)

    def _is_to_be_told(self, name: str, method: str) -> bool:
        if method not in _ASKED_OFTEN:
            return True
        now = time.monotonic()
        if now - self._told.get((name, method), -_TELL_AGAIN_SECONDS) < _TELL_AGAIN_SECONDS:
            return False
        self._told[name, method] = now
        return True

    @staticmethod
    def _operator(gate: OperatorGate, context: grpc.ServicerContext) -> str | None:
        shown = context.auth_context().get("x509_pem_cert", ())
        return gate.name_of(bytes(shown[0])) if shown else None
