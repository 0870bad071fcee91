"""Where a server is reached, and what stands in between: each by its own name, with its remedy."""

import errno
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.support.stage import wait_until

from wardround.client.daemon.certificate_renewal import CertificateWatch
from wardround.client.daemon.control_socket import ask_daemon
from wardround.client.daemon.status import DaemonStatus
from wardround.client.doctor.doctor import examine
from wardround.client.site.credentials import load_site_tls, make_client_context
from wardround.client.site.enrolment import join, renew
from wardround.common.errors import InputError, RunError
from wardround.common.flower.supernode.fleet_client import FLEET_CODES, FleetError, FleetLink
from wardround.common.security import tls_path
from wardround.common.security.join_token import parse_token
from wardround.common.security.tls_key_pair import private_pem, read_certificate, read_private_key
from wardround.server.identity.pki import SERVER, make_authority
from wardround.server.link.listeners import open_socket
from wardround.server.settings import ServerFile

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(consortium: Any, tmp_path: Path) -> Path:
    join(consortium.invite("north"), tmp_path / "north")
    return tmp_path / "north"


# --- Addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "address", "host"),
    [
        ("fl.example.org", "fl.example.org:8443", "fl.example.org"),
        ("fl.example.org:443", "fl.example.org:443", "fl.example.org"),
        ("192.0.2.7:9000", "192.0.2.7:9000", "192.0.2.7"),
        ("2001:db8::7", "[2001:db8::7]:8443", "2001:db8::7"),
        ("[2001:db8::7]:443", "[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "[2001:db8::7]:8443", "2001:db8::7"),
    ],
)
def test_a_public_name_may_have_a_port_of_its_own(name: str, address: str, host: str) -> None:
    settings = ServerFile(name="lab", public_names=(name,))
    assert settings.address == address
    assert settings.host_names == (host,)


@pytest.mark.parametrize("name", ["fl.example.org:0", "fl:70000", "a:b:c", "[x]:1", "::g", "h:1:2"])
def test_a_public_name_that_nobody_can_dial_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="public_names"):
        ServerFile(name="lab", public_names=(name,))


def test_a_site_joins_through_a_router_that_maps_ports(
    start_server: Callable[..., Any], tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    inner = start_server(tmp_path / "server")  # listens on its own port
    outside = forwarded(inner.port)
    settings = tmp_path / "server" / "server.toml"
    settings.write_text(settings.read_text().replace('"127.0.0.1",', f'"127.0.0.1:{outside}",'))
    said = wardround("server", "invite", "north", "--server", tmp_path / "server")
    assert said.code == 0, said.err
    assert parse_token(said.out).address == f"127.0.0.1:{outside}"
    assert wardround("site", "join", said.out.strip(), "--folder", tmp_path / "n").code == 0
    assert load_site_tls(tmp_path / "n").address == f"127.0.0.1:{outside}"


def test_an_operator_chooses_which_of_several_addresses_a_site_dials(
    tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    server = tmp_path / "server"
    names = ("--public-name", "in.example.org", "--public-name", "out.example.org:443")
    assert wardround("server", "init", server, "--name", "lab", *names).code == 0
    certificate = read_certificate(server / "ca" / "server.crt")
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["in.example.org", "out.example.org"]
    for asked, address in {
        "": "in.example.org:8443",
        "out.example.org": None,
        "out.example.org:443": "out.example.org:443",
        "in.example.org": "in.example.org:8443",
    }.items():
        words = ("--address", asked) if asked else ()
        said = wardround("server", "invite", "north", "--server", server, *words)
        assert said.code == (2 if address is None else 0), asked
        if address is not None:
            assert parse_token(said.out).address == address


def test_a_server_that_moves_keeps_its_sites(
    start_server: Callable[..., Any], site: Path, consortium: Any, tmp_path: Path
) -> None:
    moved = start_server(consortium.folder, ("127.0.0.1",))  # the same folder, on another port
    assert moved.port != consortium.port
    file = site / "site.toml"
    file.write_text(file.read_text().replace(f":{consortium.port}", f":{moved.port}"))
    renew(site)  # as the page says: site.toml alone was changed
    assert moved.heard


def test_the_renewal_goes_where_the_daemon_goes(site: Path, consortium: Any) -> None:
    file, before = site / "site.toml", (site / "keys" / "tls.crt").read_bytes()
    file.write_text(file.read_text().replace(f":{consortium.port}", ":1"))  # nobody is there now
    with pytest.raises(RunError):
        renew(site)
    renew(site, f"127.0.0.1:{consortium.port}")
    assert (site / "keys" / "tls.crt").read_bytes() != before


def test_the_daemon_renews_at_the_server_that_it_was_given(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tmp_path / "server")
    join(server.invite("north", timedelta(hours=1)), tmp_path / "north")
    tls = tmp_path / "north" / "keys" / "tls.crt"
    file, before = tmp_path / "north" / "site.toml", tls.read_bytes()
    file.write_text(file.read_text().replace(f":{server.port}", ":1"))
    troubles: list[str] = []
    address = f"127.0.0.1:{server.port}"
    watch = CertificateWatch(tmp_path / "north", lambda: None, troubles.append, address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wardround.client.site.enrolment.is_renewal_due", lambda *_: True)
        watch.look()
    assert troubles == []
    assert tls.read_bytes() != before


@pytest.mark.parametrize("command", ["renew", "doctor"])
def test_commands_may_be_told_the_server_too(
    site: Path, consortium: Any, wardround: Callable[..., Any], command: str
) -> None:
    file = site / "site.toml"
    file.write_text(file.read_text().replace(f":{consortium.port}", ":1"))
    said = wardround("site", command, site, "--server", f"127.0.0.1:{consortium.port}")
    assert "cannot be reached" not in said.out + said.err


def test_a_port_without_the_right_to_it_has_its_own_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(RunError, match="CAP_NET_BIND_SERVICE"):
        open_socket("0.0.0.0", 443)


# --- What ends TLS --------------------------------------------------------------------------------


def forwarded(port: int) -> int:
    """Forward a port of this machine to another, as a router does; return it."""
    listener = socket.create_server(("127.0.0.1", 0))
    pump(listener, lambda caller: (caller, socket.create_connection(("127.0.0.1", port))))
    return int(listener.getsockname()[1])


def carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        # Not closed here: the other direction still reads from it, by the number of its file.
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def pump(
    listener: socket.socket, meet: Callable[[socket.socket], tuple[socket.socket, socket.socket]]
) -> None:
    def take(caller: socket.socket) -> None:
        try:
            ends = meet(caller)
        except OSError:
            caller.close()
            return
        directions = [
            threading.Thread(target=carry, args=pair, daemon=True) for pair in (ends, ends[::-1])
        ]
        for direction in directions:
            direction.start()
        for direction in directions:
            direction.join()
        for end in ends:
            end.close()

    def accept() -> None:
        while True:
            caller, _ = listener.accept()
            threading.Thread(target=take, args=(caller,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


@pytest.fixture(params=["502", "to the server"])
def tls_is_ended(consortium: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """Put something before the server that ends TLS with a certificate of its own; its port."""
    authority = make_authority("Hospital IT")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital Inspection CA")])
    key = ec.generate_private_key(ec.SECP256R1())
    issued = authority.issue(SERVER, "proxy", key.public_key(), timedelta(days=1), ["127.0.0.1"])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=issued.subject,
        public_key=key.public_key(),
        serial_number=issued.serial_number,
        not_valid_before=issued.not_valid_before_utc,
        not_valid_after=issued.not_valid_after_utc,
    )
    from cryptography.hazmat.primitives import hashes

    shown = builder.sign(authority.key, hashes.SHA256())
    path = tmp_path / "proxy.pem"
    path.write_bytes(private_pem(key) + shown.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    listener = socket.create_server(("127.0.0.1", 0))

    def meet(caller: socket.socket) -> tuple[socket.socket, socket.socket]:
        opened = context.wrap_socket(caller, server_side=True)
        if request.param == "502":
            opened.recv(65_536)
            opened.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            opened.close()
            raise OSError
        inner = ssl.create_default_context()
        inner.check_hostname, inner.verify_mode = False, ssl.CERT_NONE
        server = socket.create_connection(("127.0.0.1", consortium.port))
        return opened, inner.wrap_socket(server)

    pump(listener, meet)
    yield int(listener.getsockname()[1])
    listener.close()


@pytest.mark.parametrize(("public", "who"), [(False, "tls-proxy"), (True, "tls-balancer")])
def test_what_ends_tls_is_named_when_a_site_joins(
    consortium: Any,
    tls_is_ended: int,
    tmp_path: Path,
    wardround: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    public: bool,
    who: str,
) -> None:
    if public:  # whom browsers trust has no key for us
        seen = tls_path.shown_certificate
        monkeypatch.setattr(tls_path, "shown_certificate", lambda where, **_: seen(where))
    settings, name = consortium.folder / "server.toml", f'"127.0.0.1:{tls_is_ended}",'
    settings.write_text(settings.read_text().replace('"127.0.0.1",', name))
    token = consortium.invite("north").text()
    said = wardround("site", "join", token, "--folder", tmp_path / "north")
    assert said.code == 3
    assert tls_path.INTERCEPTIONS[who] in said.err
    assert "Hospital Inspection CA" in said.err
    assert not (tmp_path / "north").exists()


def test_what_ends_tls_is_named_by_doctor_and_daemon(site: Path, tls_is_ended: int) -> None:
    file = site / "site.toml"
    port = load_site_tls(site).address.rpartition(":")[2]
    file.write_text(file.read_text().replace(f":{port}", f":{tls_is_ended}"))
    (found,) = [check for check in examine(site) if check.name == "TLS"]
    assert found.status == "fail"
    assert "a proxy or firewall opens TLS on the way" in found.fact + found.remedy
    with (site.parent / "daemon.log").open("wb") as log:
        command = [sys.executable, "-m", "wardround.cli", "site", "start", str(site)]
        daemon = subprocess.Popen(command, stderr=log)
    try:
        wait_until(lambda: "tls-proxy" in (site.parent / "daemon.log").read_text())
        assert FLEET_CODES["tls-proxy"] in (site.parent / "daemon.log").read_text()
        told = DaemonStatus.from_json(ask_daemon(site, "status"))
        assert {one.code for one in told.troubles} == {"tls-proxy"}
    finally:
        daemon.kill()
        daemon.wait()


def test_a_consortiums_own_server_ends_tls_itself(consortium: Any) -> None:
    assert tls_path.who_ends_tls(f"127.0.0.1:{consortium.port}") is None
    assert consortium.heard == []  # nothing was said


# --- Proxies --------------------------------------------------------------------------------------


def answering(line: bytes) -> int:
    """Start a proxy that answers every request with one line; return its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def meet(caller: socket.socket) -> tuple[socket.socket, socket.socket]:
        caller.recv(65_536)
        caller.sendall(b"HTTP/1.1 " + line + b"\r\ncontent-length: 0\r\n\r\n")
        caller.close()
        raise OSError

    pump(listener, meet)
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"407 Proxy Authentication Required", "proxy-password"),
        (b"403 Forbidden", "proxy-refused"),
        (b"405 Method Not Allowed", "proxy-refused"),
        (b"503 Service Unavailable", "proxy-failed"),
        (b"504 Gateway Timeout", "proxy-failed"),
    ],
)
def test_each_answer_of_a_proxy_has_its_own_words(
    site: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, code: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{answering(line)}")
    with pytest.raises(RunError) as refused:
        renew(site)
    assert tls_path.PROXY_ANSWERS[code] in str(refused.value)
    tls = load_site_tls(site)
    link = FleetLink(tls.address, read_private_key(tls.node_key_path), make_client_context(tls))
    with pytest.raises(FleetError) as failed:
        link.call(lambda client: client._client.get(f"https://{tls.address}/"))
    assert failed.value.code == code


def test_a_proxy_that_does_not_answer_is_named_and_not_the_server(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:secret@127.0.0.1:9")  # nobody is there
    with pytest.raises(RunError, match=r"^the proxy 127\.0\.0\.1:9 .* does not answer") as refused:
        renew(site)
    assert "NO_PROXY" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks4://127.0.0.1:1080"])
@pytest.mark.parametrize("command", ["join", "renew", "doctor", "start"])
def test_a_socks_proxy_is_a_sentence_and_no_defect(
    site: Path,
    consortium: Any,
    tmp_path: Path,
    wardround: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    proxy: str,
    command: str,
) -> None:
    token = consortium.invite("south").text()
    monkeypatch.setenv(name, proxy)
    words = (token, "--folder", tmp_path / "south") if command == "join" else (site,)
    said = wardround("site", command, *words)
    assert said.code == (1 if command == "doctor" else 2), said.err
    assert "SOCKS proxy" in " ".join((said.out + said.err).split())
    assert "defect" not in said.err


def test_a_proxy_that_is_no_address_is_a_sentence(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.example.org")
    with pytest.raises(InputError, match="write it as http"):
        renew(site)
