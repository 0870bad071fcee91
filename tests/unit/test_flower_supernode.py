"""The contract with what a site uses of Flower: parcels, the Fleet API's client, the seat."""

import datetime
import gc
import ipaddress
import json
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.fleet_pb2 import (  # noqa: TID251 - this test is the contract with them
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse  # noqa: TID251
from flwr.proto.message_pb2 import (  # noqa: TID251
    ConfirmMessageReceivedResponse,
    PullObjectResponse,
    PushObjectResponse,
)
from flwr.supercore.error import ApiErrorCode  # noqa: TID251
from flwr.supercore.inflatable.inflatable_object import get_object_id  # noqa: TID251
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext  # noqa: TID251

from wardround.common.errors import ModelError
from wardround.common.flower.carrier import LostError, StoppedError, TooLargeError
from wardround.common.flower.envelopes import Envelope
from wardround.common.flower.errors import is_transient
from wardround.common.flower.fleet import (
    FLEET_CODES,
    LARGEST_RESPONSE_BYTES,
    FleetError,
    FleetLink,
    RunEndedError,
)
from wardround.common.flower.flights import AT_ONCE, several
from wardround.common.flower.local import claim_identity
from wardround.common.flower.parcel_writer import ParcelWriter, write_message
from wardround.common.flower.parcels import Parcel
from wardround.common.flower.supernode import SuperNode
from wardround.common.flower.unpacking import read_message
from wardround.common.key_pair import private_pem

LIMIT = 10_000_000


def make_message(*arrays: Array) -> Message:
    claim_identity(7)
    model = ArrayRecord({f"w{n}": array for n, array in enumerate(arrays)})
    content = RecordDict({"order": ConfigRecord({"round": 3}), "model": model})
    return Message(content, 11, "train", group_id="round 3")


@pytest.fixture
def message() -> Message:
    return make_message(Array(np.arange(6, dtype=np.float32)), Array(np.ones(3, dtype=np.int64)))


# --- A message as a file -------------------------------------------------------------------------


def test_a_message_is_the_same_when_it_is_read_from_its_file(
    message: Message, tmp_path: Path
) -> None:
    write_message(tmp_path / "a.parcel", message)
    read = read_message(tmp_path / "a.parcel", LIMIT)
    assert read.metadata.group_id == "round 3"
    assert read.metadata.message_id == message.object_id
    assert read.content.config_records["order"] == ConfigRecord({"round": 3})
    np.testing.assert_array_equal(read.content.array_records["model"]["w0"].numpy(), np.arange(6))
    assert (tmp_path / "a.parcel").stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_large_array_travels_in_pieces_and_is_whole_again(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random(2_000_000)  # 16 MB, more than three pieces
    write_message(tmp_path / "a.parcel", make_message(Array(large)))
    with Parcel(tmp_path / "a.parcel") as parcel:
        sizes = [parcel.length(part) for part in parcel.envelope.object_ids]
    assert max(sizes) < 6 * 2**20
    read = read_message(tmp_path / "a.parcel", 20_000_000)
    np.testing.assert_array_equal(read.content.array_records["model"]["w0"].numpy(), large)


@pytest.mark.parametrize("kept", [0, 5, 30, 200, -1])
def test_a_file_that_was_cut_off_is_no_message(message: Message, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.parcel"
    write_message(path, message)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a whole message"):
        read_message(path, LIMIT)


def test_a_message_larger_than_allowed_is_refused_before_it_is_made(
    message: Message, tmp_path: Path
) -> None:
    write_message(tmp_path / "a.parcel", message)
    with pytest.raises(ModelError, match="are allowed"):
        read_message(tmp_path / "a.parcel", 100)


def rewrite(path: Path, source: Path, change: Callable[[bytes], bytes]) -> None:
    """Write a parcel whose array object is another one; all names are made to fit."""
    with Parcel(source) as parcel:
        contents = {one: parcel.content(one) for one in parcel.envelope.object_ids}
        envelope = parcel.envelope
    renamed: dict[str, str] = {}
    for old, content in contents.items():
        if content.startswith(b"Array "):
            content = change(content)
        for before, after in renamed.items():
            content = content.replace(before.encode(), after.encode())
        renamed[old] = get_object_id(content)
        contents[old] = content
    tree = envelope.tree.SerializeToString()
    for before, after in renamed.items():
        tree = tree.replace(before.encode(), after.encode())
    writer = ParcelWriter(path, Envelope(envelope.message, type(envelope.tree).FromString(tree)))
    for old, content in contents.items():
        writer.add(renamed[old], content)
    writer.finish()


def test_an_array_that_names_one_piece_a_million_times_is_refused_before_it_is_made(
    tmp_path: Path,
) -> None:
    def repeat(content: bytes) -> bytes:
        head, _, body = content.partition(b"\x00")
        described = json.loads(body)
        described["arraychunk_ids"] = [0] * 1_000_000
        changed = json.dumps(described).encode()
        kind, children, _ = head.decode().split(" ")
        return f"{kind} {children} {len(changed)}".encode() + b"\x00" + changed

    write_message(tmp_path / "a.parcel", make_message(Array(np.zeros(250_000))))  # 2 MB
    rewrite(tmp_path / "b.parcel", tmp_path / "a.parcel", lambda content: content)
    read_message(tmp_path / "b.parcel", LIMIT)
    rewrite(tmp_path / "c.parcel", tmp_path / "a.parcel", repeat)
    with pytest.raises(ModelError, match="2e\\+06 MB"):
        read_message(tmp_path / "c.parcel", LIMIT)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"Array  5\x00{}{}{",
        lambda content: b"Array",
        lambda content: content.replace(b"arraychunk_ids", b"arraychunk_idz"),
        lambda content: content.replace(b"[0]", b"[7]"),
        lambda content: content.replace(b"Array ", b"Pickle ", 1),
    ],
)
def test_objects_that_make_no_message_are_refused_in_words(
    message: Message, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    write_message(tmp_path / "a.parcel", message)
    rewrite(tmp_path / "b.parcel", tmp_path / "a.parcel", change)
    with pytest.raises(ModelError, match="cannot be read"):
        read_message(tmp_path / "b.parcel", LIMIT)


# --- The connection ------------------------------------------------------------------------------


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
    folder: Path, answer: Callable[[BaseHTTPRequestHandler], None]
) -> Iterator[tuple[str, list[tuple[object, dict[str, str]]]]]:
    """A server over mutual TLS that notes whose certificate it saw and which headers."""
    seen: list[tuple[object, dict[str, str]]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.connection.getpeercert()["subject"], dict(self.headers)))  # type: ignore[attr-defined]
            answer(self)

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
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


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
    with serve(certificates, reply(403, body)) as (address, _), pytest.raises(RunEndedError):
        pull(make_link(address, site_context(certificates)))


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


# --- The seat ------------------------------------------------------------------------------------


class Fleet:
    """A Fleet API in memory; it stands where Flower's client would."""

    def __init__(self) -> None:
        self.node_key = ec.generate_private_key(ec.SECP384R1()).public_key()
        self.refusals: list[Exception] = []
        self.called: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.taken: dict[str, bytes] = {}
        self.wanted: list[set[str]] = []
        self.room: list[int] = []  # how many objects each session takes; then any number
        self._left = -1
        self._lock = threading.Lock()
        self.pushed: list[object] = []

    def call(self, ask):  # type: ignore[no-untyped-def]
        return ask(self)

    def close(self) -> None:
        self.called.append("close")

    def _note(self, name: str) -> None:
        self.called.append(name)
        if self.refusals and name != "DeactivateNode":
            raise self.refusals.pop(0)

    def ActivateNode(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("ActivateNode")
        assert request.public_key.startswith(b"-----BEGIN PUBLIC KEY-----")
        return ActivateNodeResponse(node_id=42)

    def DeactivateNode(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("DeactivateNode")
        assert request.node_id == 42

    def SendNodeHeartbeat(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        assert request.node.node_id == 42
        return SendNodeHeartbeatResponse(success=True)

    def PullMessages(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PullMessages")
        return PullMessagesResponse()

    def PullObject(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PullObject")
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=bool(content),
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("ConfirmMessageReceived")
        return ConfirmMessageReceivedResponse()

    def PushMessages(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PushMessages")
        self.pushed.append(request.messages_list[0])
        wanted = self.wanted.pop(0) if self.wanted else set()
        self._left = self.room.pop(0) if self.room else -1
        return PushMessagesResponse(objects_to_push=sorted(wanted), session_id="s")

    def PushObject(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self._note("PushObject")
        with self._lock:
            stored = self._left != 0
            self._left -= stored
        if stored:
            self.taken[request.object_id] = request.object_content
        return PushObjectResponse(stored=stored)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def node(fleet: Fleet, heard: list[str], tmp_path: Path) -> Iterator[SuperNode]:
    made = SuperNode(fleet, tmp_path, threading.Event(), heard.append)  # type: ignore[arg-type]
    yield made
    made.leave()


def parcel_of(message: Message, tmp_path: Path) -> tuple[Envelope, dict[str, bytes]]:
    write_message(tmp_path / "source.parcel", message)
    with Parcel(tmp_path / "source.parcel") as parcel:
        envelope = parcel.envelope
        return envelope, {one: parcel.content(one) for one in envelope.object_ids}


def test_a_site_that_was_killed_ends_its_old_connection_instead_of_waiting_for_its_end(
    fleet: Fleet, node: SuperNode, tmp_path: Path, heard: list[str]
) -> None:
    (tmp_path / "node").write_text("42")
    back = SuperNode(fleet, tmp_path, threading.Event(), heard.append)  # type: ignore[arg-type]
    fleet.refusals = [FleetError("still-connected")]
    back.join()
    assert fleet.called == ["ActivateNode", "DeactivateNode", "ActivateNode"]
    assert heard == [""]


def test_a_site_that_is_refused_tries_again_and_never_ends(
    fleet: Fleet, node: SuperNode, heard: list[str]
) -> None:
    fleet.refusals = [FleetError("still-connected"), FleetError("refused"), RunEndedError()]
    node.join()
    assert heard == ["still-connected", "refused", "refused", ""]
    assert node.node_id == 42


def test_a_site_that_is_told_to_stop_stops_waiting_for_its_server(
    fleet: Fleet, tmp_path: Path, heard: list[str]
) -> None:
    stop = threading.Event()
    stop.set()
    fleet.refusals = [FleetError("no-connection")] * 2
    with pytest.raises(StoppedError):
        SuperNode(fleet, tmp_path, stop, heard.append).join()  # type: ignore[arg-type]


def test_an_order_is_fetched_whole_and_confirmed(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, fleet.objects = parcel_of(message, tmp_path)
    fleet.refusals = [FleetError("no-connection"), FleetError("server-busy")]
    node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    assert fleet.called[-1] == "ConfirmMessageReceived"
    read = read_message(tmp_path / "order.parcel", LIMIT)
    assert read.content.config_records["order"]["round"] == 3


def test_an_order_that_is_too_large_is_left_with_the_server(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    large = make_message(Array(np.random.default_rng(0).random(3_000_000)))  # 24 MB, five pieces
    envelope, fleet.objects = parcel_of(large, tmp_path)
    with pytest.raises(TooLargeError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", 6_000_000)
    assert fleet.called.count("PullObject") <= 3 + AT_ONCE  # a small one comes first
    assert not (tmp_path / "order.parcel").exists()
    assert not (tmp_path / "order.part").exists()


def test_an_object_that_the_server_has_lost_ends_the_fetching(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, fleet.objects = parcel_of(message, tmp_path)
    fleet.objects.popitem()
    with pytest.raises(LostError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)


LARGE = [Array(np.random.default_rng(n).random(100_000)) for n in range(8)]  # 0.8 MB each


def test_an_order_that_was_interrupted_is_fetched_on_from_there_by_the_next_process(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    envelope, contents = parcel_of(make_message(*LARGE), tmp_path)
    half = envelope.object_ids[: len(contents) // 2]
    fleet.objects = {one: contents[one] for one in half}  # then the server is gone
    with pytest.raises(LostError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    again, fleet.objects = parcel_of(make_message(*LARGE), tmp_path)  # under another name
    assert again.message_id != envelope.message_id
    fleet.called.clear()
    other = SuperNode(fleet, tmp_path, threading.Event(), lambda _: None)  # type: ignore[arg-type]
    other.carrier.fetch(again, tmp_path / "order.parcel", LIMIT)
    asked = fleet.called.count("PullObject")
    assert asked == len([one for one in again.object_ids if one not in half])
    assert asked < len(contents) * 0.6
    read = read_message(tmp_path / "order.parcel", LIMIT)
    for n, array in enumerate(LARGE):
        assert read.content.array_records["model"][f"w{n}"].data == array.data


@pytest.mark.parametrize("torn", [3, 25, 400, 1_000_000, -1, -500_000])
def test_what_a_power_cut_tore_of_an_interrupted_order_is_fetched_again(
    fleet: Fleet, node: SuperNode, tmp_path: Path, torn: int
) -> None:
    envelope, contents = parcel_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:14]}
    with pytest.raises(LostError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    part = tmp_path / "order.part"
    written = bytearray(part.read_bytes())
    written[torn] ^= 1
    part.write_bytes(written)
    fleet.objects = contents
    node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    read = read_message(tmp_path / "order.parcel", LIMIT)
    for n, array in enumerate(LARGE):
        assert read.content.array_records["model"][f"w{n}"].data == array.data


def test_what_is_left_of_another_model_takes_no_room_in_the_next_order(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, contents = parcel_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:-1]}
    with pytest.raises(LostError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    assert (tmp_path / "order.part").stat().st_size > 5_000_000
    small, fleet.objects = parcel_of(message, tmp_path)
    node.carrier.fetch(small, tmp_path / "order.parcel", LIMIT)
    assert (tmp_path / "order.parcel").stat().st_size < 10_000
    assert not (tmp_path / "order.part").exists()


def test_what_was_fetched_before_counts_for_the_largest_message(
    fleet: Fleet, node: SuperNode, tmp_path: Path
) -> None:
    envelope, contents = parcel_of(make_message(*LARGE), tmp_path)
    fleet.objects = {one: contents[one] for one in envelope.object_ids[:-1]}
    with pytest.raises(LostError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", LIMIT)
    fleet.objects, fleet.called = contents, []
    with pytest.raises(TooLargeError):
        node.carrier.fetch(envelope, tmp_path / "order.parcel", 1_000_000)
    assert "PullObject" not in fleet.called
    assert not (tmp_path / "order.part").exists()


def test_a_few_calls_are_under_way_at_a_time_and_the_results_keep_their_order() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def ask(item: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way, most = under_way + 1, max(most, under_way + 1)
        time.sleep(0.01 * (item % 3))
        with lock:
            under_way -= 1
        return item

    assert list(several(ask, range(20), 3)) == list(range(20))
    assert most == 3


def test_what_is_asked_for_ahead_is_bounded_and_ends_with_the_first_that_fails() -> None:
    asked: list[int] = []

    def ask(item: int) -> int:
        asked.append(item)
        if item == 4:
            raise LostError
        return item

    coming = several(ask, range(100), 2)
    assert next(coming) == 0
    time.sleep(0.05)
    assert asked == [0, 1, 2]
    with pytest.raises(LostError):
        list(coming)
    assert max(asked) <= 6


def test_an_answer_that_was_half_sent_is_sent_on_from_there(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, contents = parcel_of(message, tmp_path)
    first, *others = envelope.object_ids
    fleet.wanted = [set(envelope.object_ids), set(others)]
    fleet.room = [1]  # then the session has ended
    node.carrier.push(tmp_path / "source.parcel", 1.0)
    assert fleet.taken == contents
    assert fleet.called.count("PushMessages") == 2
    refused = fleet.called.count("PushObject") - len(contents)
    assert 1 <= refused <= 1 + AT_ONCE  # those that were under way
    assert first in fleet.taken


def test_an_answer_that_the_server_never_keeps_is_given_up(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, _ = parcel_of(message, tmp_path)
    fleet.wanted = [set(envelope.object_ids)] * 9
    fleet.room = [0] * 9
    with pytest.raises(LostError):
        node.carrier.push(tmp_path / "source.parcel", 1.0)


def test_an_excuse_is_an_error_that_means_send_it_again(
    fleet: Fleet, node: SuperNode, message: Message, tmp_path: Path
) -> None:
    envelope, _ = parcel_of(message, tmp_path)
    node.carrier.excuse(envelope)
    node.carrier.fail(envelope, "internal")
    excuse, failure = fleet.pushed
    assert is_transient(excuse.error.code)  # type: ignore[attr-defined]
    assert not is_transient(failure.error.code)  # type: ignore[attr-defined]
    assert excuse.metadata.reply_to_message_id == envelope.message_id  # type: ignore[attr-defined]
