"""Encrypted connections: to an archive whose certificate is checked, and to the receiver."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.clinic.certificates import make_certificates

from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError, open_archive
from wardround.client.clinic.pacs.receiver import receiving
from wardround.client.clinic.pacs.settings import LimitsTable, Peer, ReceiverTable
from wardround.common.errors import InputError

pynetdicom = pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")


@contextmanager
def _web(folder: Path, wants_certificate: bool = False) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            return

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that hang up
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def _ask(site: Path, url: str, more: str = "") -> None:
    text = f'[dicomweb]\nurl = "{url}"\ntimeout_seconds = 5\n{more}'
    (site / "pacs.toml").write_text(text)
    open_archive(site).ping()


def test_an_archive_is_trusted_by_its_authority_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    with _web(tmp_path) as url:
        with pytest.raises(PacsError, match="signed by nobody known") as refused:
            _ask(tmp_path, url)
        assert not isinstance(refused.value, PacsAwayError)
        _ask(tmp_path, url, 'ca_file = "ca.pem"\n')
        with pytest.raises(InputError, match="there is no file"):
            _ask(tmp_path, url, 'ca_file = "other.pem"\n')
        with pytest.raises(PacsError, match="for another name"):
            _ask(tmp_path, url.replace("127.0.0.1", "localhost"), 'ca_file = "ca.pem"\n')


def test_an_archive_that_wants_a_certificate_gets_the_sites(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    own = 'ca_file = "ca.pem"\ncertificate_file = "own.pem"\nkey_file = "own.key"\n'
    with _web(tmp_path, wants_certificate=True) as url:
        with pytest.raises(PacsError, match=r"certificate_file|TLS failed|broke off"):
            _ask(tmp_path, url, 'ca_file = "ca.pem"\n')
        _ask(tmp_path, url, own)


def test_a_receiver_speaks_tls_and_a_silent_greeting_keeps_nobody_out(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    table = ReceiverTable(
        port=number,
        allowed=(Peer(title="SENDER", address="127.0.0.1"),),
        ca_file="ca.pem",
        certificate_file="own.pem",
        key_file="own.key",
    )
    entity = pynetdicom.AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    entity.acse_timeout = 3
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with (
        receiving(tmp_path, table, LimitsTable(), lambda _: 0) as port,
        socket.create_connection(("127.0.0.1", port)),  # says nothing
    ):
        context.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
        link = entity.associate(
            "127.0.0.1", port, ae_title="WARDROUND", tls_args=(context, "127.0.0.1")
        )
        assert link.is_established
        assert link.send_c_echo().Status == 0
        link.release()
        plain = entity.associate("127.0.0.1", port, ae_title="WARDROUND")
        assert not plain.is_established


def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("no certificate")
    table = ReceiverTable(
        port=11_112,
        allowed=(Peer(title="SENDER", address="127.0.0.1"),),
        certificate_file="own.pem",
    )
    with (
        pytest.raises(InputError, match="no usable certificate"),
        receiving(tmp_path, table, LimitsTable(), lambda _: 0),
    ):
        pass
