"""The operators' API over a real socket and real TLS; the runs are folders that a test fills."""

import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.studies.tiny_study import SMALLEST_STUDY

from wardround.common.errors import InputError, RunError
from wardround.common.security.tls_key_pair import private_pem, read_certificate
from wardround.server.identity.certificate_gate import CertificateGate
from wardround.server.identity.operator_access import issue_operator, revoke_operator
from wardround.server.identity.pki import (
    INVITATION,
    OPERATOR,
    SITE,
    make_authority,
    open_authority,
    serial_text,
)
from wardround.server.identity.server_certificate import renew_server_certificate
from wardround.server.operators.client import server_at
from wardround.server.operators.grpc_server import operators_served
from wardround.server.operators.interceptor import MOST_WATCHERS
from wardround.server.operators.messages import Submission
from wardround.server.operators.proto import operators_pb2
from wardround.server.operators.wire import LARGEST_MESSAGE, SERVICE, SOCKET_FILE
from wardround.server.scheduling.queue import StudyQueue, stop_run
from wardround.server.service.installation import init_server
from wardround.simulations.local_federation.processes import free_port


@dataclass(frozen=True, slots=True)
class Served:
    folder: Path
    port: int
    operator: Path

    @property
    def place(self) -> str:
        return str(self.folder)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix:{self.folder / SOCKET_FILE}")


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("s") / "server"  # a socket's path is short
    init_server(place, "Demo", ["localhost"], "127.0.0.1", 8443)
    return place


@pytest.fixture
def served(folder) -> Iterator[Served]:
    port, operator = free_port(), folder.parent / "ann"
    issue_operator(folder, "ann", 30, operator)
    with operators_served(folder, f"localhost:{port}"):
        yield Served(folder, port, operator)


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(folder) -> None:
    path = folder / SOCKET_FILE
    with operators_served(folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_socket_left_by_a_killed_server_is_replaced(folder) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / SOCKET_FILE))
    left.close()
    with operators_served(folder), server_at(str(folder)) as line:
        assert line.server().name == "Demo"


def test_a_study_goes_from_submission_to_its_end_before_an_operators_eyes(served) -> None:
    queue = StudyQueue(served.folder)
    with server_at(served.place) as line:
        done = line.submit(Submission(SMALLEST_STUDY))
        assert (done.run, done.ahead) == ("tiny-1", 0)
        assert [run.state for run in line.runs().runs] == ["queued"]
        events = line.watch(done.run)
        assert (first := next(events)).kind == "state"
        assert first.state == "queued"
        queue.started(done.run)
        assert next(events).state == "starting"
        assert line.stop(done.run).state == "stopping"
        assert next(events).state == "stopping"
        queue.stopped(done.run)
        assert [event.kind for event in events] == ["end"]
        assert line.resume(done.run).state == "queued"
        assert line.show(done.run).summary.digest == done.digest
        assert line.server().runs == {"queued": 1}
        assert line.sites().sites == ()


def test_a_refused_study_is_answered_with_its_sentence(served) -> None:
    with server_at(served.place) as line:
        with pytest.raises(InputError, match=r"study\.name is missing: add it"):
            line.submit(Submission(SMALLEST_STUDY.replace('name = "tiny"', "")))
        with pytest.raises(InputError, match="is not JSON"):
            line.submit(Submission(SMALLEST_STUDY, "json"))
        with pytest.raises(InputError, match="there is no run 'x'"):
            line.show("x")
        with pytest.raises(InputError, match="there is no run 'x'"):
            list(line.watch("x"))
        assert line.runs().runs == ()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (b"\xff\xff", "what came is no message AboutRun"),
        (b"\x0a\x01\xff", "what came is no message AboutRun"),  # a name that is no UTF-8
        (b"\x08\x07", "AboutRun has fields that are unknown here"),  # a number for a name
        (b"\x0a\x01x\x52\x01y", "AboutRun has fields that are unknown here"),
        (b"", "there is no run ''"),
    ],
)
def test_a_question_that_is_not_as_agreed_is_refused(served, question: bytes, said: str) -> None:
    with served.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/ShowRun")(question, timeout=20)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in refused.value.details()


def test_a_question_that_is_too_large_is_not_read(served) -> None:
    question = bytes(LARGEST_MESSAGE + 1)
    with served.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/ShowRun")(question, timeout=20)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_standard_health_service_says_that_it_serves(served) -> None:
    with served.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_what_the_proto_names_is_served_and_nothing_else(served) -> None:
    methods = list(operators_pb2.DESCRIPTOR.services_by_name["Operators"].methods_by_name)
    assert len(methods) == 13
    with served.channel() as channel:
        for name in [*methods, "Unknown"]:
            call = channel.unary_unary(f"/{SERVICE}/{name}")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\x9a\x01\x01x", timeout=20)  # a field that no question has
            code = refused.value.code()
            assert (code == grpc.StatusCode.UNIMPLEMENTED) == (name == "Unknown"), (name, code)


def test_too_many_watchers_are_told_so_and_short_questions_still_answered(served) -> None:
    with server_at(served.place) as line:
        run = line.submit(Submission(SMALLEST_STUDY)).run
        watches = [line.watch(run) for _ in range(MOST_WATCHERS)]
        for watch in watches:
            assert next(watch).kind == "state"
        with pytest.raises(RunError, match="watch already"):
            next(line.watch(run))
        assert line.server().runs == {"queued": 1}
        stop_run(served.folder, run)
        assert all(event.kind == "end" for watch in watches for event in watch)
        assert [event.kind for event in line.watch(run)] == ["end"]


def test_a_watcher_of_a_server_that_is_stopped_is_told(folder) -> None:
    with server_at(str(folder)) as line:
        with operators_served(folder):
            watch = line.watch(line.submit(Submission(SMALLEST_STUDY)).run)
            assert next(watch).state == "queued"
        with pytest.raises(RunError, match="no server answers"):
            next(watch)


def test_without_a_server_the_command_that_starts_it_is_named(folder) -> None:
    with (
        server_at(str(folder)) as line,
        pytest.raises(RunError, match=f"wardround server start {folder}"),
    ):
        line.runs()


def test_many_operators_submit_at_a_time(served) -> None:
    failures: list[Exception] = []

    def submit(seed: int) -> None:
        try:
            with server_at(served.place) as line:
                line.submit(Submission(f"{SMALLEST_STUDY}\n[federation]\nseed = {seed}\n"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with server_at(served.place) as line:
        assert [run.run for run in line.runs().runs] == [f"tiny-{n}" for n in range(1, 9)]


# --- Over the network ------------------------------------------------------------
def test_an_operator_with_a_certificate_is_answered_over_the_network(served) -> None:
    with server_at(served.address, served.operator) as line:
        assert line.submit(Submission(SMALLEST_STUDY)).run == "tiny-1"


def test_a_certificate_taken_away_opens_nothing_from_the_next_call_on(served) -> None:
    with server_at(served.address, served.operator) as line:
        assert line.runs().runs == ()
        assert revoke_operator(served.folder, "ann") == 1
        with pytest.raises(RunError, match="not that of an operator, or it was taken away"):
            line.runs()


def test_an_operators_certificate_opens_nothing_on_the_sites_port(served) -> None:
    certificate = read_certificate(served.operator / "operator.crt")
    gate = CertificateGate(served.folder)
    der = certificate.public_bytes(Encoding.DER)
    assert gate.check(der) is gate.check_invitation(der) is None
    gate.close()


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 65, "a\n"])
def test_a_name_that_cannot_stand_in_a_certificate_is_refused(folder, name: str) -> None:
    with pytest.raises(InputError, match="cannot be an operator's name"):
        issue_operator(folder, name, 1, folder.parent / "out")


def test_an_operators_certificate_is_asked_for_before_anything_is_sent(served) -> None:
    with (
        pytest.raises(InputError, match="takes an operator's certificate"),
        server_at(served.address),
    ):
        pass


def _identity(served: Served, authority, unit: str, name: str) -> Path:
    key, place = ec.generate_private_key(ec.SECP256R1()), served.folder.parent / f"{name}-{unit}"
    place.mkdir()
    certificate = authority.issue(unit, name, key.public_key(), timedelta(days=1))
    (place / "operator.key").write_bytes(private_pem(key))
    (place / "operator.key").chmod(0o600)
    (place / "operator.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (place / "ca.crt").write_bytes((served.folder / "ca" / "ca.crt").read_bytes())
    return place


@pytest.mark.parametrize("unit", [SITE, INVITATION, OPERATOR])
def test_certificates_of_the_consortium_that_are_no_known_operators_open_nothing(
    served, unit: str
) -> None:
    """Also that of an operator which the table does not hold."""
    identity = _identity(served, open_authority(served.folder), unit, "north")
    with (
        server_at(served.address, identity) as line,
        pytest.raises(RunError, match="not that of an operator"),
    ):
        line.runs()
    credentials = grpc.ssl_channel_credentials(
        *((identity / name).read_bytes() for name in ("ca.crt", "operator.key", "operator.crt"))
    )
    with grpc.secure_channel(served.address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for call in (health.Check, lambda *given, **more: next(health.Watch(*given, **more))):
            with pytest.raises(grpc.RpcError) as refused:
                call(health_pb2.HealthCheckRequest(), timeout=20)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_another_authoritys_certificate_gets_no_connection(served) -> None:
    identity = _identity(served, make_authority("Other"), OPERATOR, "eve")
    with (
        server_at(served.address, identity) as line,
        pytest.raises(RunError, match="no server answers"),
    ):
        line.runs()


def test_without_a_certificate_or_without_tls_nothing_is_answered(served) -> None:
    ca = (served.folder / "ca" / "ca.crt").read_bytes()
    secure = grpc.secure_channel(served.address, grpc.ssl_channel_credentials(ca))
    for channel in (secure, grpc.insecure_channel(served.address)):
        with channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{SERVICE}/ListRuns")(b"", timeout=5)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_server_called_by_a_name_that_is_not_its_own_is_not_trusted(served) -> None:
    with (
        server_at(f"127.0.0.1:{served.port}", served.operator) as line,
        pytest.raises(RunError, match="TLS failed"),
    ):
        line.runs()


def test_a_renewed_certificate_is_shown_to_the_next_connection(served) -> None:
    context = ssl.create_default_context(cafile=served.operator / "ca.crt")
    context.load_cert_chain(served.operator / "operator.crt", served.operator / "operator.key")

    def shown() -> str:
        address = ("localhost", served.port)
        with (
            socket.create_connection(address, timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            content = secure.getpeercert(binary_form=True)
            assert content is not None
            return serial_text(x509.load_der_x509_certificate(content))

    first = shown()
    assert shown() == first
    time.sleep(1.1)  # certificates are told apart by the second of their end
    renewed = renew_server_certificate(served.folder)
    assert shown() == serial_text(renewed) != first


def test_an_address_that_cannot_be_used_is_refused(folder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(InputError, match="operators cannot be served"),
            operators_served(folder, address),
        ):
            pass
    assert not (folder / SOCKET_FILE).exists()


def test_the_operators_side_of_the_server_does_not_import_torch_or_flower() -> None:
    code = (
        "import sys, wardround.server.service.service, wardround.server.operators.operations\n"
        "print([name for name in ('torch', 'flwr', 'numpy', 'monai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
