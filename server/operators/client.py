"""An operator's side of the API: asks a server, over its socket or over the network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from wardround.common.errors import InputError, RunError, WardroundError
from wardround.common.runtime.system.files import is_locked
from wardround.common.runtime.system.required import require_linux
from wardround.common.security.tls_key_pair import check_private
from wardround.server.identity.operator_access import OPERATOR_CERTIFICATE, OPERATOR_KEY
from wardround.server.identity.pki import CA_CERTIFICATE
from wardround.server.operators.messages import (
    AboutRun,
    ModelPart,
    Nothing,
    RunDetails,
    RunEvent,
    RunRecord,
    Runs,
    RunSummary,
    ServerSummary,
    Sites,
    Submission,
    Submitted,
    WithdrawalAsked,
    WithdrawalPlanned,
    Withdrawals,
)
from wardround.server.operators.wire import (
    LARGEST_MESSAGE,
    SERVICE,
    SOCKET_FILE,
    pack,
    read_reply,
    socket_target,
)
from wardround.server.settings import LOCK_FILE, SERVER_FILE

ANSWER_SECONDS = 30.0
_LONG_SECONDS = 300.0  # a network is built, commits are copied; what was begun is begun once
_Reply = TypeVar("_Reply")
# Each is the sentence of a refusal; any other status is gRPC's own.
_INPUT, _RUN = (grpc.StatusCode.INVALID_ARGUMENT,), (grpc.StatusCode.FAILED_PRECONDITION,)
_TOLD = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
)
_TLS_WORDS = ("certificate", "handshake", "verification")  # in gRPC's own sentences
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * LARGEST_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@contextmanager
def server_at(place: str, identity: Path | None = None) -> Iterator["ServerLine"]:
    """Open a line to a server.

    Args:
        place: The server folder, on its own machine, or else "host:port".
        identity: An operator's folder, as 'wardround server operator' writes it, for "host:port".

    Raises:
        InputError: The place is neither, or the identity cannot be used.
    """
    channel = _local_channel(Path(place)) if _is_folder(place) else _secure(place, identity)
    try:
        yield ServerLine(channel, place)
    finally:
        channel.close()


@dataclass(frozen=True, slots=True)
class ServerLine:
    """A line to a server.

    Each method raises :class:`InputError` with the server's sentence where it refuses what is
    asked, and :class:`RunError` where it does not answer.
    """

    channel: grpc.Channel
    place: str

    def submit(self, submission: Submission) -> Submitted:
        """Hand a study in."""
        return self._ask("SubmitStudy", submission, Submitted, _LONG_SECONDS)

    def runs(self) -> Runs:
        """Return all runs."""
        return self._ask("ListRuns", Nothing(), Runs)

    def show(self, run: str) -> RunDetails:
        """Return all that is known of a run."""
        return self._ask("ShowRun", AboutRun(run), RunDetails)

    def record(self, run: str) -> RunRecord:
        """Return what a report of a run is made of."""
        return self._ask("RecordRun", AboutRun(run), RunRecord)

    def watch(
        self, run: str, begun: Callable[[Callable[[], object]], None] = lambda _: None
    ) -> Iterator[RunEvent]:
        """Yield what has happened and what happens in a run, until it is over.

        Args:
            begun: Is given what ends the watch, from any thread.
        """
        call = self.channel.unary_stream(f"/{SERVICE}/WatchRun", request_serializer=pack)
        with self._refusals_read():
            answer = call(AboutRun(run))
            begun(answer.cancel)
            for content in answer:
                yield read_reply(RunEvent, content)

    def model(self, run: str) -> Iterator[ModelPart]:
        """Yield the file of the model that a finished run keeps, in parts."""
        call = self.channel.unary_stream(f"/{SERVICE}/FetchModel", request_serializer=pack)
        with self._refusals_read():
            for content in call(AboutRun(run)):
                yield read_reply(ModelPart, content)

    def stop(self, run: str) -> RunSummary:
        """Want a run to stop."""
        return self._ask("StopRun", AboutRun(run), RunSummary)

    def resume(self, run: str) -> RunSummary:
        """Queue a run again."""
        return self._ask("ResumeRun", AboutRun(run), RunSummary)

    def withdrawals(self) -> Withdrawals:
        """Return what sites asked to leave and no operator has begun yet."""
        return self._ask("ListWithdrawals", Nothing(), Withdrawals)

    def plan_withdrawal(self, asked: WithdrawalAsked) -> WithdrawalPlanned:
        """Return what a run without a site would repeat; nothing is changed."""
        return self._ask("PlanWithdrawal", asked, WithdrawalPlanned, _LONG_SECONDS)

    def begin_withdrawal(self, asked: WithdrawalAsked) -> WithdrawalPlanned:
        """Revoke a run's model and queue its repeat without a site."""
        return self._ask("BeginWithdrawal", asked, WithdrawalPlanned, _LONG_SECONDS)

    def sites(self) -> Sites:
        """Return all sites of the consortium."""
        return self._ask("ListSites", Nothing(), Sites)

    def server(self) -> ServerSummary:
        """Return how the server stands."""
        return self._ask("ShowServer", Nothing(), ServerSummary)

    def _ask(
        self, method: str, question: object, kind: type[_Reply], seconds: float | None = None
    ) -> _Reply:
        call = self.channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=pack)
        limit = ANSWER_SECONDS if seconds is None else seconds
        with self._refusals_read():
            try:
                return read_reply(kind, call(question, timeout=limit))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
                msg = (
                    f"the server of {self.place} did not answer within {limit:g} s, as if it were "
                    "busy; what was asked may have been done: look before you ask again."
                )
                raise RunError(msg) from None

    @contextmanager
    def _refusals_read(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._refusal(error.code(), str(error.details() or "")) from None

    def _refusal(self, code: grpc.StatusCode, sentence: str) -> WardroundError:
        if code in _INPUT:
            return InputError(sentence)
        if code in _RUN or code in _TOLD:
            return RunError(sentence)
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return RunError(f"the server at {self.place} runs another version: install the same.")
        if _is_folder(self.place) and is_locked(Path(self.place) / LOCK_FILE):
            return RunError(f"the server of {self.place} is starting: ask again in some seconds.")
        return RunError(f"no server answers at {self.place}: {self._remedy(sentence)}")

    def _remedy(self, sentence: str) -> str:
        if _is_folder(self.place):
            return f"start it with 'wardround server start {self.place}', under your account."
        if any(word in sentence.lower() for word in _TLS_WORDS):
            return (
                "TLS failed. The server must have been made with the CA in your operator's folder, "
                "and the name you call it by must stand in public_names of its server.toml."
            )
        return "check name and port, and that it was started with --operators."


def _is_folder(place: str) -> bool:
    return (Path(place) / SERVER_FILE).is_file()


def _local_channel(folder: Path) -> grpc.Channel:
    require_linux("a server's own socket")
    return grpc.insecure_channel(socket_target(folder / SOCKET_FILE), _OPTIONS)


def _secure(address: str, identity: Path | None) -> grpc.Channel:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or Path(address).exists():
        msg = (
            f"{address} is neither a server folder nor HOST:PORT: "
            "give one with --server, or set WARDROUND_SERVER."
        )
        raise InputError(msg)
    if identity is None:
        msg = (
            f"{address} is reached over the network, which takes an operator's certificate: give "
            "its folder with --identity, or set WARDROUND_OPERATOR; "
            "'wardround server operator NAME' on the server makes one."
        )
        raise InputError(msg)
    try:
        check_private(identity / OPERATOR_KEY)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=(identity / CA_CERTIFICATE).read_bytes(),
            private_key=(identity / OPERATOR_KEY).read_bytes(),
            certificate_chain=(identity / OPERATOR_CERTIFICATE).read_bytes(),
        )
    except OSError as error:
        msg = f"{identity} is not an operator's folder ({error.strerror}): give one that is."
        raise InputError(msg) from None
    return grpc.secure_channel(address, credentials, _OPTIONS)
