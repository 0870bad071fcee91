"""Strangers, revoked sites, the invited and bad sites, none of whom keeps another site out.

The link may open 256 files here; where the system allows 1,024 an attack has four times as many
connections. Attackers and sites share one address, as behind a proxy.
"""

import base64
import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.hostile.attackers import (
    Caller,
    Crowd,
    invitation_file,
    is_open,
    read_all,
    request,
)
from tests.support.stage import Deployment, deployed, wait_until

from wardround.common.security.tls_key_pair import private_pem, public_pem, read_private_key
from wardround.server.identity.invitations import invite
from wardround.server.identity.membership import revoke
from wardround.server.identity.pki import SITE, open_authority

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.skipif(sys.platform != "linux", reason="it limits a process as Linux does"),
]
OPEN_FILES, SILENCE_SECONDS = 256, 1.0
MANY = OPEN_FILES + 50
LARGEST_LOG = 20_000  # bytes


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path, "127.0.0.1") as made:
        made.change_settings(silence_seconds=SILENCE_SECONDS)
        made.start_link(OPEN_FILES)
        yield made


def site(deployment: Deployment, name: str) -> Caller:
    deployment.join(name)
    return Caller(deployment.port, deployment.site_certificate(name))


def unknown_site(deployment: Deployment) -> Caller:
    """Return who has a certificate that the CA signed and the server's list does not hold."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = open_authority(deployment.server)
    certificate = authority.issue(SITE, "north", key.public_key(), timedelta(days=1))
    path = deployment.folder / "unknown.pem"
    path.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    return Caller(deployment.port, path)


def require_service(caller: Caller, deployment: Deployment, times: int = 5) -> None:
    """Have a site call again and again; each time it is answered soon, and the log stays small.

    A site whose call breaks off calls again, as it does without attackers.
    """
    for _ in range(times):
        wait_until(caller.is_served, 5.0)
        time.sleep(0.2)
    assert len(deployment.log("link")) < LARGEST_LOG


def test_silent_connections_keep_no_site_out(deployment: Deployment) -> None:
    north = site(deployment, "north")
    with Crowd(Caller(deployment.port), MANY).at_work():
        require_service(north, deployment, times=10)
        require_service(site(deployment, "south"), deployment)  # a newcomer is let in meanwhile


def test_silent_connections_of_many_addresses_keep_no_site_out(deployment: Deployment) -> None:
    north = site(deployment, "north")
    lines = []
    for number in range(MANY):
        stranger = Caller(deployment.port, source=f"127.0.{number // 250 + 1}.{number % 250 + 1}")
        lines.append(stranger.connect())
    require_service(north, deployment)
    for line in lines:
        line.close()


def test_a_handshake_that_does_not_go_on_ends_after_five_seconds(deployment: Deployment) -> None:
    with Caller(deployment.port).connect() as silent, Caller(deployment.port).connect() as slow:
        slow.sendall(b"\x16\x03\x01")  # the beginning of a hello
        begun = time.monotonic()
        wait_until(lambda: not is_open(silent) and not is_open(slow), 15.0)
        assert 3.0 < time.monotonic() - begun < 9.0


@pytest.mark.parametrize("whose", ["revoked", "unknown"])
def test_a_certificate_that_opens_nothing_holds_no_place(
    deployment: Deployment, whose: str
) -> None:
    north = site(deployment, "north")
    if whose == "revoked":
        attacker = site(deployment, "south")
        revoke(deployment.server, "south")
    else:
        attacker = unknown_site(deployment)
    lines = [attacker.shake_hands() for _ in range(MANY)]
    require_service(north, deployment)
    for line in lines:
        told = read_all(line)  # before any request; the oldest were ended for newer ones
        assert told == b"" or told.startswith(b"HTTP/1.1 403")
        line.close()
    assert b'{"refused":"not-a-site"}' in read_all(attacker.shake_hands())


def test_a_site_takes_the_places_of_no_other(deployment: Deployment) -> None:
    north, south = site(deployment, "north"), site(deployment, "south")
    with Crowd(south, MANY, with_tls=True).at_work():
        require_service(north, deployment)


def test_the_invited_take_no_places_of_sites(deployment: Deployment) -> None:
    north = site(deployment, "north")
    names = [f"guest-{number}" for number in range(6)]
    files = [
        invitation_file(invite(deployment.server, name), deployment.folder / f"{name}.pem")
        for name in names
    ]
    lines = []
    for number in range(MANY):
        line = Caller(deployment.port, files[number % len(files)]).shake_hands()
        with contextlib.suppress(OSError):  # ended already
            line.sendall(request("POST /wardround/enrol/join HTTP/1.1\ncontent-length: 2") + b"{}")
        lines.append(line)
    require_service(north, deployment)
    for line in lines:
        line.close()


def test_a_site_that_was_silent_or_stops_in_the_middle_is_dropped(deployment: Deployment) -> None:
    north = site(deployment, "north")
    says = {
        "nothing": b"",
        "the beginning of a head": b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost:",
        "a line end now and then": b"\r\n",
    }
    lines = [north.shake_hands() for _ in says]
    for line, content in zip(lines, says.values(), strict=True):
        line.sendall(content)
    wait_until(lambda: not any(is_open(line) for line in lines), SILENCE_SECONDS + 8)


def test_a_body_that_never_comes_is_dropped(deployment: Deployment) -> None:
    north = site(deployment, "north")
    begun = time.monotonic()
    for path in ("/v1/fleet/pull-messages", "/wardround/enrol/renew"):
        head = f"POST {path} HTTP/1.1\ncontent-length: 1000\n{node_header(deployment, 'north')}"
        with north.shake_hands() as line:
            line.sendall(request(head) + b"ten bytes.")
            line.settimeout(25.0)
            assert read_all(line).startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))
    assert time.monotonic() - begun < SILENCE_SECONDS + 25


def test_a_body_in_chunks_is_not_what_its_length_says(deployment: Deployment) -> None:
    north = site(deployment, "north")
    head = (
        "POST /v1/fleet/pull-messages HTTP/1.1\ncontent-length: 10\ntransfer-encoding: chunked\n"
        + node_header(deployment, "north")
    )
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    sent = 0
    with north.shake_hands() as line:
        line.sendall(request(head))
        with contextlib.suppress(OSError):
            for _ in range(64):
                line.sendall(chunk)
                sent += 1
    assert sent < 32, f"{sent} MB were taken in"


def test_what_is_done_a_hundred_times_leaves_a_few_lines_in_the_log(deployment: Deployment) -> None:
    north = site(deployment, "north")
    for _ in range(100):
        with north.shake_hands() as line:
            line.sendall(b"this is no HTTP\r\n\r\n")
            assert read_all(line).startswith(b"HTTP/1.1 400")
    assert len(deployment.log("link").splitlines()) < 20


def node_header(deployment: Deployment, name: str) -> str:
    key = read_private_key(deployment.site(name) / "keys" / "node.key").public_key()
    return f"flwr-public-key: {base64.b64encode(public_pem(key)).decode()}"
