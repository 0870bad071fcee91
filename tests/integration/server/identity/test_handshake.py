"""Who gets past TLS: bad certificates are refused before any handler hears of them."""

import ssl
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.client.site.credentials import bare_context, load_site_tls, make_client_context
from wardround.client.site.enrolment import join
from wardround.client.site.server_client import open_link
from wardround.common.security.enrolment import STATUS_PATH
from wardround.common.security.tls_key_pair import private_pem
from wardround.server.identity.peer_certificate import make_server_context
from wardround.server.identity.pki import SERVER, SITE, Authority, make_authority, open_authority
from wardround.server.identity.server_certificate import load_server_tls, renew_server_certificate


def context_with(consortium: Any, tmp_path: Path, authority: Authority, **issue: Any) -> Any:
    """Return a client that trusts the server and shows a certificate of an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    unit, life = issue.get("unit", SITE), issue.get("life", timedelta(days=1))
    certificate = authority.issue(unit, "north", key.public_key(), life)
    path = tmp_path / "shown.pem"
    path.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    context = bare_context()
    context.load_verify_locations(cafile=consortium.folder / "ca" / "ca.crt")
    context.load_cert_chain(path)
    return context


def get(consortium: Any, context: ssl.SSLContext) -> httpx.Response:
    with open_link(f"127.0.0.1:{consortium.port}", context) as client:
        return client.get(STATUS_PATH)


def shake_hands(*ends: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]) -> None:
    """Let two ends, each with what it sends and where that goes, agree on TLS in memory."""
    for _ in range(5):
        for end, sent, to in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            if sent is not to:
                to.write(sent.read())


def test_no_certificate_gets_nothing(consortium: Any) -> None:
    context = bare_context()
    context.load_verify_locations(cafile=consortium.folder / "ca" / "ca.crt")
    with pytest.raises(httpx.HTTPError):
        get(consortium, context)
    assert consortium.heard == []


@pytest.mark.parametrize("seconds", [-1, -3000])
def test_an_expired_certificate_gets_nothing(consortium: Any, tmp_path: Path, seconds: int) -> None:
    authority = open_authority(consortium.folder)
    context = context_with(consortium, tmp_path, authority, life=timedelta(seconds=seconds))
    with pytest.raises(httpx.HTTPError):
        get(consortium, context)
    assert consortium.heard == []


def test_another_ca_of_the_same_name_gets_nothing(consortium: Any, tmp_path: Path) -> None:
    context = context_with(consortium, tmp_path, make_authority("Lung-2026"))
    with pytest.raises(httpx.HTTPError):
        get(consortium, context)
    assert consortium.heard == []


def test_a_server_certificate_is_no_clients(consortium: Any, tmp_path: Path) -> None:
    authority = open_authority(consortium.folder)
    with pytest.raises(httpx.HTTPError):
        get(consortium, context_with(consortium, tmp_path, authority, unit=SERVER))
    assert consortium.heard == []


def test_a_certificate_signed_by_a_site_gets_nothing(consortium: Any, tmp_path: Path) -> None:
    """A site's certificate is no CA, whatever its holder signs with it."""
    key = ec.generate_private_key(ec.SECP384R1())
    real = open_authority(consortium.folder)
    site = real.issue(SITE, "north", key.public_key(), timedelta(days=1))
    context = context_with(consortium, tmp_path, Authority(site, key))
    (tmp_path / "shown.pem").open("ab").write(site.public_bytes(Encoding.PEM))
    context.load_cert_chain(tmp_path / "shown.pem")
    with pytest.raises(httpx.HTTPError):
        get(consortium, context)
    assert consortium.heard == []


def test_a_certificate_that_the_server_never_noted_passes_no_gate(
    consortium: Any, tmp_path: Path
) -> None:
    context = context_with(consortium, tmp_path, open_authority(consortium.folder))
    assert get(consortium, context).json() == {"refused": "not-a-site"}


def test_a_good_certificate_gets_a_reply(consortium: Any, tmp_path: Path) -> None:
    """The other tests' refusals are not for want of a server."""
    join(consortium.invite("north"), tmp_path / "north")
    tls = load_site_tls(tmp_path / "north")
    assert get(consortium, make_client_context(tls)).status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("lowered", [False, True])
def test_tls_older_than_1_2_is_refused(consortium: Any, tmp_path: Path, lowered: bool) -> None:
    """For its version alone: a server that allowed 1.1 would have agreed."""
    join(consortium.invite("north"), tmp_path / "north")
    ours = make_client_context(load_site_tls(tmp_path / "north"))
    theirs = make_server_context(load_server_tls(consortium.folder))
    for context in (ours, theirs):
        context.set_ciphers("ALL:@SECLEVEL=0")  # of OpenSSL, which refuses 1.1 as well
    ours.minimum_version = ours.maximum_version = ssl.TLSVersion.TLSv1_1
    if lowered:
        theirs.minimum_version = ssl.TLSVersion.TLSv1_1
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = theirs.wrap_bio(to_server, to_client, server_side=True)
    refused = nullcontext() if lowered else pytest.raises(ssl.SSLError, match="UNSUPPORTED")
    with refused:
        shake_hands((client, to_server, to_server), (server, to_client, to_client))
    assert client.version() == ("TLSv1.1" if lowered else None)


def test_tls_1_2_is_enough(consortium: Any, tmp_path: Path) -> None:
    join(consortium.invite("north"), tmp_path / "north")
    context = make_client_context(load_site_tls(tmp_path / "north"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert get(consortium, context).status_code == 200


def test_plain_http_gets_nothing(consortium: Any) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{consortium.port}{STATUS_PATH}", trust_env=False)
    assert consortium.heard == []


def test_a_site_refuses_a_server_under_a_name_that_is_not_in_its_certificate(
    consortium: Any, tmp_path: Path
) -> None:
    join(consortium.invite("north"), tmp_path / "north")
    context = make_client_context(load_site_tls(tmp_path / "north"))
    with (
        open_link(f"localhost:{consortium.port}", context) as client,
        pytest.raises(httpx.ConnectError, match="mismatch"),
    ):
        client.get(STATUS_PATH)
    assert [name for name, _ in consortium.heard if "status" in name] == []


def test_a_site_refuses_another_sites_certificate_as_the_servers(
    consortium: Any, tmp_path: Path
) -> None:
    """Another site of the consortium cannot play the server."""
    join(consortium.invite("north"), tmp_path / "north")
    join(consortium.invite("south"), tmp_path / "south")
    south, north = load_site_tls(tmp_path / "south"), load_site_tls(tmp_path / "north")
    false = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    false.load_cert_chain(south.cert_path, south.key_path)
    context = make_client_context(north)
    context.check_hostname = False  # its purpose alone must be reason enough
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    server = false.wrap_bio(server_in, server_out, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose"):
        shake_hands((client, outgoing, server_in), (server, server_out, incoming))


def test_a_renewed_server_is_known_to_sites_that_joined_before(
    consortium: Any, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    join(consortium.invite("north"), tmp_path / "north")
    ca = (consortium.folder / "ca" / "ca.crt").read_bytes()
    before = load_server_tls(consortium.folder).cert_path.read_bytes()
    renew_server_certificate(consortium.folder)
    assert load_server_tls(consortium.folder).cert_path.read_bytes() != before
    assert (consortium.folder / "ca" / "ca.crt").read_bytes() == ca
    restarted = start_server(consortium.folder)
    context = make_client_context(load_site_tls(tmp_path / "north"))
    assert get(restarted, context).json()["site"] == "north"
    assert get(consortium, context).json()["site"] == "north"  # the old one goes on meanwhile
