"""The contract with what a site uses of Flower: the Fleet API's client, over mutual TLS."""

import datetime
import gc
import ipaddress
import json
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from flwr.proto.fleet_pb2 import (  # noqa: TID251 - this test is the contract with them
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.supercore.error import ApiErrorCode  # noqa: TID251
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext  # noqa: TID251

from wardround.common.flower.supernode.fleet_client import (
    FLEET_CODES,
    LARGEST_RESPONSE_BYTES,
    FleetError,
    FleetLink,
    RunEndedError,
)
from wardround.common.security.tls_key_pair import private_pem


def make_certificate(
    folder: Path, name: str, authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (authority[0].subject, authority[1]) if authority else (subject, key)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(authority is None, None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(private_pem(key))
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = make_certificate(folder, "ca", None)
    for name in ("server", "site"):
        make_certificate(folder, name, authority)
    make_certificate(folder, "other-ca", None)
    return folder


def site_context(folder: Path, authority: str = "ca", shown: str | None = "site") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=folder / f"{authority}.crt")
    if shown:
        context.load_cert_chain(folder / f"{shown}.crt", folder / f"{shown}.key")
    return context


@contextmanager
def serve(
    folder: Path, reply: Callable[[BaseHTTPRequestHandler], None]
) -> Iterator[tuple[str, list[tuple[object, dict[str, str]]]]]:
    """A server over mutual TLS that notes whose certificate it saw and which headers."""
    seen: list[tuple[object, dict[str, str]]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.connection.getpeercert()["subject"], dict(self.headers)))  # type: ignore[attr-defined]
            reply(self)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(cafile=folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server = HTTPServer(("127.0.0.1", 0), Answering)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


def reply(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return reply


def pull(link: FleetLink) -> PullMessagesResponse:
    return link.call(lambda client: client.PullMessages(PullMessagesRequest()))


def make_link(address: str, context: ssl.SSLContext) -> FleetLink:
    return FleetLink(address, ec.generate_private_key(ec.SECP384R1()), context)


def test_the_certificate_of_the_site_is_shown_and_its_node_key_signs(certificates: Path) -> None:
    with serve(certificates, reply(200, b"")) as (address, seen):
        link = make_link(address, site_context(certificates))
        assert pull(link) == PullMessagesResponse()
    subject, headers = seen[0]
    assert subject == (((("commonName"), "site"),),)
    assert {"flwr-public-key", "flwr-signature", "flwr-package-version"} <= headers.keys()
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (412, b'{"code": 2004, "detail": "Failed to activate SuperNode."}', "still-connected"),
        (412, b'{"refused": "flower-version"}', "flower-version"),
        (412, b'{"code": 1001, "detail": "Runtime version ..."}', "flower-version"),
        (401, b'{"detail": "Invalid SuperNode authentication"}', "not-admitted"),
        (403, b"forbidden", "refused"),
        (500, b"", "server-busy"),
        (503, b"", "server-busy"),
        (302, b"", "unreadable"),
        (404, b"<html>", "unreadable"),
        (200, b"\xff\xff\xff no protobuf", "unreadable"),
    ],
)
def test_what_a_server_answers_becomes_a_word(
    certificates: Path, status: int, body: bytes, code: str
) -> None:
    with serve(certificates, reply(status, body, location="/elsewhere")) as (address, seen):
        with pytest.raises(FleetError) as refused:
            pull(make_link(address, site_context(certificates)))
        assert len(seen) == 1  # no redirection is followed
    assert refused.value.code == code
    assert str(refused.value) == FLEET_CODES[code]


@pytest.mark.parametrize(
    "code", [ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED]
)
def test_a_run_that_has_ended_is_no_failure_of_the_connection(
    certificates: Path, code: ApiErrorCode
) -> None:
    body = json.dumps({"code": int(code), "detail": ""}).encode()
    with (
        serve(certificates, reply(403, body)) as (address, _),
        pytest.raises(RunEndedError) as ended,
    ):
        pull(make_link(address, site_context(certificates)))
    assert ended.value.is_withdrawn == (code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("1.40.2", "flwr 1.40.2 there: the server"),
        ("<script>", "flwr of no readable version there: the server"),
        ("1.1" + "9" * 99, "flwr of no readable version there: the server"),
    ],
)
def test_of_another_flower_the_sentence_has_both_versions(
    certificates: Path, there: str, said: str
) -> None:
    refusal = reply(412, b'{"refused": "flower-version"}', flwr_package_version=there)
    with serve(certificates, refusal) as (address, _):
        link = make_link(address, site_context(certificates))
        assert link.words("flower-version") == FLEET_CODES["flower-version"]
        with pytest.raises(FleetError):
            pull(link)
    sentence = link.words("flower-version")
    assert sentence.startswith(f"flwr {version('flwr')} here, {said}")
    assert "pip install 'flwr>=1.41,<1.43'" in sentence
    assert link.words("refused") == FLEET_CODES["refused"]


def test_a_response_without_end_is_cut_off(certificates: Path) -> None:
    def pour(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        piece = bytes(2**20)
        try:
            for _ in range(10 * LARGEST_RESPONSE_BYTES // len(piece)):
                request.wfile.write(piece)
            poured.append(True)
        except OSError:
            poured.append(False)

    poured: list[bool] = []
    with serve(certificates, pour) as (address, _):
        with pytest.raises(FleetError) as refused:
            pull(make_link(address, site_context(certificates)))
        assert refused.value.code == "unreadable"
    assert poured == [False]


def test_a_packed_response_is_not_unpacked(certificates: Path) -> None:
    packed = reply(200, b"\x1f\x8b\x08", content_encoding="gzip")
    with serve(certificates, packed) as (address, _):
        with pytest.raises(FleetError) as refused:
            pull(make_link(address, site_context(certificates)))
        assert refused.value.code == "unreadable"


@pytest.mark.parametrize(
    ("authority", "shown", "code"),
    [
        ("other-ca", "site", "server-certificate"),
        ("ca", "other-ca", "own-certificate"),
        ("ca", None, "own-certificate"),
    ],
)
def test_a_certificate_that_does_not_fit_is_named(
    certificates: Path, authority: str, shown: str | None, code: str
) -> None:
    with serve(certificates, reply(200, b"")) as (address, seen):
        with pytest.raises(FleetError) as refused:
            pull(make_link(address, site_context(certificates, authority, shown)))
        assert refused.value.code == code
        assert not seen


def test_a_server_that_is_not_there_is_no_connection(certificates: Path) -> None:
    with serve(certificates, reply(200, b"")) as (address, _):
        pass
    with pytest.raises(FleetError) as refused:
        pull(make_link(address, site_context(certificates)))
    assert refused.value.code == "no-connection"


def test_what_a_response_held_is_let_go_without_the_garbage_collector(certificates: Path) -> None:
    seen: list[weakref.ref[httpx.Response]] = []

    class Watching:
        def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> object:
            response = call_next(context)
            seen.append(weakref.ref(response))
            return response

    gc.disable()
    try:
        with serve(certificates, reply(200, b"")) as (address, _):
            link = make_link(address, site_context(certificates))
            link._client._interceptors = (*link._client._interceptors, Watching())
            for _ in range(3):
                pull(link)
        assert [response() for response in seen] == [None] * 3
    finally:
        gc.enable()


def test_a_renewed_certificate_is_shown_from_the_next_call_on(certificates: Path) -> None:
    with serve(certificates, reply(200, b"")) as (address, seen):
        link = make_link(address, site_context(certificates))
        pull(link)
        link.open(site_context(certificates, shown="server"))
        pull(link)
    assert [str(subject) for subject, _ in seen] == [
        "((('commonName', 'site'),),)",
        "((('commonName', 'server'),),)",
    ]
