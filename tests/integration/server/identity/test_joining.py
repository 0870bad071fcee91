"""Joining over real TLS: what is sent, what is kept, and what is left when it fails."""

import base64
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from wardround.client.site.credentials import (
    load_site_tls,
    make_client_context,
)
from wardround.client.site.enrolment import join, renew
from wardround.client.site.folder import open_site
from wardround.client.site.server_client import LinkError, RefusedByServerError, ask, open_link
from wardround.common.errors import InputError, RunError
from wardround.common.security.enrolment import (
    STATUS_PATH,
    ServerStatus,
)
from wardround.common.security.join_token import parse_token
from wardround.common.security.tls_key_pair import public_pem, read_private_key
from wardround.server.identity.membership import members

PRIVATE = ("tls.key", "node.key")


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ways_to_write(key: ec.EllipticCurvePrivateKey) -> list[bytes]:
    """Return a private key's number in the ways that it could stand in a message."""
    number = key.private_numbers().private_value
    raw = number.to_bytes((key.key_size + 7) // 8, "big")
    shifted = [base64.b64encode(bytes(n) + raw)[4 if n else 0 : -8] for n in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), str(number).encode(), *shifted]


def test_a_site_joins_and_the_server_knows_it(consortium: Any, tmp_path: Path) -> None:
    join(parse_token(consortium.invite("north").text()), tmp_path / "north")
    tls = load_site_tls(tmp_path / "north")
    with open_link(tls.address, make_client_context(tls)) as client:
        assert ask(client, STATUS_PATH, ServerStatus).site == "north"
    (member,) = members(consortium.folder)
    node_key = read_private_key(tls.node_key_path)
    assert member.node_key == public_pem(node_key.public_key()).decode()
    assert member.is_active(datetime.now(UTC))


def test_the_folder_of_a_new_site_is_complete_and_its_keys_are_its_own(
    consortium: Any, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        join(consortium.invite("north"), tmp_path / "north")
    finally:
        os.umask(before)
    folder = tmp_path / "north"
    assert open_site(folder).settings.server is not None
    assert sorted(everything_below(folder)) == [
        "keys/ca.crt",
        "keys/node.key",
        "keys/tls.crt",
        "keys/tls.key",
        "manifest.example.csv",
        "policy.toml",
        "site.toml",
    ]
    modes = {name: (folder / "keys" / name).stat().st_mode & 0o777 for name in PRIVATE}
    assert modes == dict.fromkeys(PRIVATE, 0o600)
    assert (folder / "keys").stat().st_mode & 0o777 == 0o700


def test_no_private_key_is_in_any_request(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    first = read_private_key(folder / "keys" / "tls.key")
    renew(folder)
    keys = [first, *(read_private_key(folder / "keys" / name) for name in PRIVATE)]
    heard = b"".join(content for _, content in consortium.heard)
    assert [name for name, _ in consortium.heard] == [
        "GET /wardround/enrol/ca",
        "POST /wardround/enrol/join",
        "POST /wardround/enrol/renew",
    ]
    assert public_pem(keys[2].public_key()).splitlines()[1] in heard  # the search finds keys
    assert b"PRIVATE" not in heard
    for key in keys:
        assert [written for written in ways_to_write(key) if written in heard] == []


def test_the_search_for_a_private_key_would_find_it_in_a_pem() -> None:
    from wardround.common.security.tls_key_pair import private_pem

    key = ec.generate_private_key(ec.SECP256R1())
    text = b"".join(private_pem(key).splitlines()[1:-1])
    assert any(written in text for written in ways_to_write(key))


def test_the_wrong_server_hears_nothing_but_a_question(
    consortium: Any, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    other = start_server(tmp_path / "other")
    token = replace(consortium.invite("north"), address=f"127.0.0.1:{other.port}")
    with pytest.raises(RunError, match=r"ended the TLS connection|broke off"):
        join(token, tmp_path / "north")
    assert other.heard == []
    assert not (tmp_path / "north").exists()


def test_a_server_with_another_fingerprint_is_sent_nothing_secret(
    consortium: Any, tmp_path: Path
) -> None:
    token = replace(consortium.invite("north"), ca_sha256=bytes(32))
    with pytest.raises(RunError, match="another fingerprint"):
        join(token, tmp_path / "north")
    assert [name for name, _ in consortium.heard] == ["GET /wardround/enrol/ca"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server"]


def test_a_server_that_is_away_leaves_nothing_behind(tmp_path: Path, consortium: Any) -> None:
    token = replace(consortium.invite("north"), address="127.0.0.1:9")
    with pytest.raises(LinkError, match="cannot be reached"):
        join(token, tmp_path / "north")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server"]


def test_an_invitation_works_once(consortium: Any, tmp_path: Path) -> None:
    token = consortium.invite("north")
    join(token, tmp_path / "north")
    with pytest.raises(RefusedByServerError, match="used already"):
        join(token, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_two_joins_at_a_time_let_one_in(consortium: Any, tmp_path: Path) -> None:
    token, results = consortium.invite("north"), []
    start = threading.Barrier(4)

    def run(number: int) -> None:
        start.wait()
        try:
            join(token, tmp_path / f"north-{number}")
            results.append("joined")
        except RefusedByServerError as error:
            results.append(str(error)[:30])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["joined", *["the invitation was used alread"] * 3]
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("north")]) == 1


def test_an_expired_token_is_refused_before_anything_is_sent(
    consortium: Any, tmp_path: Path
) -> None:
    token = consortium.invite("north", timedelta(seconds=-1))
    with pytest.raises(InputError, match="expired"):
        join(token, tmp_path / "north")
    assert consortium.heard == []


def test_a_reply_that_is_lost_costs_no_second_invitation(consortium: Any, tmp_path: Path) -> None:
    consortium.lose = 1
    join(consortium.invite("north"), tmp_path / "north")
    assert [name.split()[0] for name, _ in consortium.heard] == ["GET", "POST", "POST"]
    assert load_site_tls(tmp_path / "north").address.startswith("127.0.0.1:")


def test_an_existing_site_folder_keeps_what_it_has(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    folder.mkdir()
    text = '# ours\nname = "north"\ndevice = "cpu"\n'
    (folder / "site.toml").write_text(text)
    (folder / "policy.toml").write_text("smallest_cohort = 30\n")
    (folder / "manifest.csv").write_text("patient,image,label\n")
    join(consortium.invite("north"), folder)
    assert (folder / "site.toml").read_text().startswith(text)
    assert (folder / "policy.toml").read_text() == "smallest_cohort = 30\n"
    settings = open_site(folder).settings
    assert settings.device == "cpu"
    assert settings.server is not None
    assert load_site_tls(folder).key_path.stat().st_mode & 0o777 == 0o600


def test_a_folder_of_another_site_is_refused(consortium: Any, tmp_path: Path) -> None:
    (tmp_path / "south").mkdir()
    (tmp_path / "south" / "site.toml").write_text('name = "south"\n')
    with pytest.raises(InputError, match="is the folder of 'south'"):
        join(consortium.invite("north"), tmp_path / "south")
    assert consortium.heard == []


def test_a_join_that_cannot_be_written_leaves_the_folder_as_it_was(
    consortium: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "north"
    (folder / "keys" / "tls.key").mkdir(parents=True)  # no file can take this place
    (folder / "keys" / "tls.key" / "something").write_text("")
    (folder / "site.toml").write_text('name = "north"\n')
    before = everything_below(folder)
    with pytest.raises(RunError, match="so it is as it was"):
        join(consortium.invite("north"), folder)
    assert everything_below(folder) == before


def test_a_full_disk_is_noticed_before_the_invitation_is_used(
    consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wardround.client.site.new_folder as new_folder

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(new_folder, "write_new", full)
        with pytest.raises(InputError, match="The server was not asked"):
            join(consortium.invite("north"), tmp_path / "north")
    assert consortium.heard == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server"]


def test_the_reply_must_be_a_certificate_for_the_sites_own_key(
    consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wardround.server.identity.enrolment as enrolment

    real = enrolment.admit

    def swapped(folder: Path, serial: str, key: object, node_key: str) -> str:
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        return real(folder, serial, other, node_key)

    monkeypatch.setattr(enrolment, "admit", swapped)
    with pytest.raises(RefusedByServerError, match="not a certificate for this site's key"):
        join(consortium.invite("north"), tmp_path / "north")
    assert not (tmp_path / "north").exists()


@pytest.fixture
def connect_proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that understands CONNECT, and writes down whereto."""
    import socket
    import socketserver

    asked: list[bytes] = []

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.request.recv(4096)
            asked.append(head.splitlines()[0])
            host, port = head.split()[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as far:
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                other = threading.Thread(target=self.pump, args=(far, self.request), daemon=True)
                other.start()
                self.pump(self.request, far)
                other.join(5)

        @staticmethod
        def pump(source: socket.socket, sink: socket.socket) -> None:
            try:
                while part := source.recv(65536):
                    sink.sendall(part)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], asked
        server.shutdown()
        thread.join()


def test_a_site_behind_a_proxy_joins_through_it(
    consortium: Any,
    tmp_path: Path,
    connect_proxy: tuple[int, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, asked = connect_proxy
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    join(consortium.invite("north"), tmp_path / "north")
    line = f"CONNECT 127.0.0.1:{consortium.port} HTTP/1.1".encode()
    assert asked == [line, line]


def test_a_site_that_joins_a_second_consortium_shares_the_first_folders_ledger(
    consortium: Any, tmp_path: Path
) -> None:
    heart, lung = tmp_path / "heart", tmp_path / "lung"
    token = consortium.invite("heart")
    join(token, heart)
    ledger = open_site(heart).ledger_folder
    assert ledger == heart / "ledger"
    join(consortium.invite("lung"), lung, ledger=ledger)
    assert open_site(lung).ledger_folder == ledger
    ledger.mkdir()
    with pytest.raises(InputError, match="has a ledger already"):
        join(token, heart, again=True, ledger=lung / "ledger")
