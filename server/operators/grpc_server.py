"""The operators' API over gRPC: on a socket in the server folder, elsewhere only with certificates.

It runs in threads of the process that watches over the server. ``proto/operators.proto`` says what
is asked and answered.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from wardround.common.errors import InputError, RunError, WardroundError
from wardround.common.runtime.system.files import opened_by_owner_alone
from wardround.server.identity.operator_access import OperatorGate
from wardround.server.identity.server_certificate import ServerTls, load_server_tls
from wardround.server.operators.connected_sites import PresenceMonitor
from wardround.server.operators.interceptor import MOST_WATCHERS, OperatorInterceptor
from wardround.server.operators.messages import AboutRun, Nothing, Submission, WithdrawalAsked
from wardround.server.operators.operations import Operations
from wardround.server.operators.wire import (
    LARGEST_MESSAGE,
    SERVICE,
    SOCKET_FILE,
    pack,
    read_question,
    socket_target,
)

logger = logging.getLogger(__name__)
_THREADS = MOST_WATCHERS + 8  # some are left for short questions
_STOP_SECONDS = 2.0
_OWNER_ONLY_MASK = 0o177
_Question = TypeVar("_Question")


@contextmanager
def operators_served(folder: Path, address: str = "") -> Iterator[None]:
    """Serve the operators of a server folder; its lock is held by this process.

    Args:
        address: "host:port" to listen on besides the socket, for operators with certificates.

    Raises:
        InputError: The address or the server's certificate cannot be used.
        RunError: The socket cannot be made.
    """
    closing = Event()
    operations = Operations(folder)
    with ExitStack() as stack:
        stack.callback(PresenceMonitor(folder).close)
        listeners = [_local_listener(folder, operations, closing)]
        stack.callback((folder / SOCKET_FILE).unlink, missing_ok=True)
        if address:
            listeners.append(_network_listener(folder, address, operations, closing))
        for listener in listeners:
            listener.start()
            stack.callback(_stop, listener)
        stack.callback(closing.set)
        yield


def _stop(listener: grpc.Server) -> None:
    listener.stop(_STOP_SECONDS).wait()


def _local_listener(folder: Path, operations: Operations, closing: Event) -> grpc.Server:
    path = folder / SOCKET_FILE
    listener = _listener(operations, closing, None)
    path.unlink(missing_ok=True)  # of a server that was killed
    try:
        with opened_by_owner_alone():
            listener.add_insecure_port(socket_target(path))
    except RuntimeError:
        msg = f"cannot make the socket {path}: check that you may write there."
        raise RunError(msg) from None
    return listener


def _network_listener(
    folder: Path, address: str, operations: Operations, closing: Event
) -> grpc.Server:
    gate = OperatorGate(folder)
    listener = _listener(operations, closing, gate)
    first = load_server_tls(folder)
    credentials = grpc.dynamic_ssl_server_credentials(
        _certificates(first), _Renewals(folder, first).newer, require_client_authentication=True
    )
    try:
        listener.add_secure_port(address, credentials)
    except RuntimeError:
        msg = f"operators cannot be served on {address}: give HOST:PORT of this machine, unused."
        raise InputError(msg) from None
    return listener


def _certificates(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    pair = (tls.key_path.read_bytes(), tls.cert_path.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], tls.ca_path.read_bytes())


class _Renewals:
    """Gives new connections the server's renewed certificate."""

    def __init__(self, folder: Path, tls: ServerTls) -> None:
        self._folder, self._expires = folder, tls.expires

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificate, None where it is the one that is used already."""
        try:
            tls = load_server_tls(self._folder)
            if tls.expires == self._expires:
                return None
            configuration = _certificates(tls)
        except (WardroundError, OSError) as error:
            logger.warning("the server's certificate cannot be read: %s", error)
            return None
        self._expires = tls.expires
        return configuration


def _listener(operations: Operations, closing: Event, gate: OperatorGate | None) -> grpc.Server:
    listener = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="operators"),
        interceptors=(OperatorInterceptor(gate),),
        options=(
            ("grpc.so_reuseport", 0),  # an address that is taken is refused
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ),
    )
    listener.add_generic_rpc_handlers((_handlers(operations, closing),))
    servicer = health.HealthServicer(experimental_non_blocking=False)
    for service in ("", SERVICE):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, listener)
    return listener


def _handlers(operations: Operations, closing: Event) -> grpc.GenericRpcHandler:
    # No request_deserializer: it would run before the gate, and its errors have no sentence.
    questions: dict[str, tuple[type, Callable[..., object]]] = {
        "SubmitStudy": (Submission, operations.submit),
        "ListRuns": (Nothing, operations.runs),
        "ShowRun": (AboutRun, operations.show),
        "RecordRun": (AboutRun, operations.record),
        "StopRun": (AboutRun, operations.stop),
        "ResumeRun": (AboutRun, operations.resume),
        "ListWithdrawals": (Nothing, operations.withdrawals),
        "PlanWithdrawal": (WithdrawalAsked, operations.plan_withdrawal),
        "BeginWithdrawal": (WithdrawalAsked, operations.begin_withdrawal),
        "ListSites": (Nothing, operations.sites),
        "ShowServer": (Nothing, operations.server),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(_reply, kind, ask), response_serializer=pack
        )
        for name, (kind, ask) in questions.items()
    }
    watch = partial(_watch, operations, closing)
    methods["WatchRun"] = grpc.unary_stream_rpc_method_handler(watch, response_serializer=pack)
    fetch = partial(_fetch, operations)
    methods["FetchModel"] = grpc.unary_stream_rpc_method_handler(fetch, response_serializer=pack)
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _reply(
    kind: type[_Question],
    ask: Callable[[_Question], object],
    request: bytes,
    context: grpc.ServicerContext,
) -> object:
    with _refusals_told(context):
        return ask(read_question(kind, request))


def _fetch(
    operations: Operations, request: bytes, context: grpc.ServicerContext
) -> Iterator[object]:
    with _refusals_told(context):
        yield from operations.model(read_question(AboutRun, request))


def _watch(
    operations: Operations,
    closing: Event,
    request: bytes,
    context: grpc.ServicerContext,
) -> Iterator[object]:
    def wait(seconds: float) -> bool:
        return not closing.wait(seconds) and bool(context.is_active())

    with _refusals_told(context):
        yield from operations.watch(read_question(AboutRun, request), wait)
        if closing.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is being stopped.")


@contextmanager
def _refusals_told(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer a refusal with its sentence, and a defect without its text."""
    try:
        yield
    except RunError as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except WardroundError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        logger.exception("an operator's question could not be answered")
        text = f"a defect of wardround ({type(error).__name__}): the server's log says more."
        context.abort(grpc.StatusCode.INTERNAL, text)
