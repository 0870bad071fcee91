"""Invitations and membership: once, for one site, until they expire; and the gate over them."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.common.errors import InputError, RunError
from wardround.common.security.enrolment import Reason
from wardround.common.security.join_token import JoinToken
from wardround.server.identity.certificate_gate import CertificateGate
from wardround.server.identity.invitations import RefusedError, admit, invite, renew
from wardround.server.identity.membership import members, revoke
from wardround.server.identity.pki import (
    INVITATION,
    SERVER,
    SITE,
    make_authority,
    open_authority,
    serial_text,
)
from wardround.server.service.installation import init_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_server(tmp_path / "server", "Lung-2026", ["localhost"], "127.0.0.1", 8443)
    return tmp_path / "server"


def public() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def serial(token: JoinToken) -> str:
    return serial_text(token.certificate)


def join(folder: Path, site: str = "north") -> bytes:
    """Return the certificate of a site that joins, as TLS shows it."""
    return shown(admit(folder, serial(invite(folder, site)), public(), f"node key of {site}"))


def shown(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def test_of_many_at_a_time_one_is_let_in(folder: Path) -> None:
    token, start, results = invite(folder, "north"), threading.Barrier(12), []

    def run(number: int) -> None:
        key = public()
        start.wait()
        try:
            admit(folder, serial(token), key, f"node {number}")
            results.append("in")
        except RefusedError as error:
            results.append(error.reason)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["in", *[Reason.USED] * 11]
    assert len(members(folder)) == 1


def test_the_same_key_gets_the_same_certificate_again(folder: Path) -> None:
    token, key = invite(folder, "north"), public()
    first = admit(folder, serial(token), key, "node")
    assert admit(folder, serial(token), key, "node") == first


def test_a_revoked_site_does_not_get_its_certificate_again(folder: Path) -> None:
    token, key = invite(folder, "north"), public()
    admit(folder, serial(token), key, "node")
    revoke(folder, "north")
    with pytest.raises(RefusedError, match="used"):
        admit(folder, serial(token), key, "node")


def test_an_expired_invitation_is_refused(folder: Path) -> None:
    token = invite(folder, "north", timedelta(seconds=-1))
    with pytest.raises(RefusedError, match="expired"):
        admit(folder, serial(token), public(), "node")
    assert members(folder) == ()


def test_an_invitation_expires_after_three_days(folder: Path) -> None:
    left = invite(folder, "north").expires - datetime.now(UTC)
    assert timedelta(hours=71.9) < left <= timedelta(hours=72)


def test_a_new_invitation_withdraws_the_earlier_one(folder: Path) -> None:
    first, second = invite(folder, "north"), invite(folder, "north")
    with pytest.raises(RefusedError, match="cancelled"):
        admit(folder, serial(first), public(), "node")
    admit(folder, serial(second), public(), "node")


def test_an_invitation_that_was_never_made_is_refused(folder: Path) -> None:
    with pytest.raises(RefusedError, match="not-invited"):
        admit(folder, "1234", public(), "node")


def test_a_refused_join_uses_nothing_up(folder: Path) -> None:
    join(folder, "south")
    token = invite(folder, "north")
    with pytest.raises(RefusedError, match="node-key"):
        admit(folder, serial(token), public(), "node key of south")
    admit(folder, serial(token), public(), "node key of north")


def test_a_site_with_a_valid_certificate_is_not_invited_again(folder: Path) -> None:
    join(folder)
    with pytest.raises(InputError, match="revoke"):
        invite(folder, "north")
    revoke(folder, "north")
    invite(folder, "north")


@pytest.mark.parametrize("has_joined", [True, False])
def test_a_name_in_other_capitals_is_not_invited_while_the_first_is(
    folder: Path, has_joined: bool
) -> None:
    join(folder, "north") if has_joined else invite(folder, "north")
    with pytest.raises(InputError, match="North and north differ in capitals alone"):
        invite(folder, "North")
    revoke(folder, "north")
    invite(folder, "North")


def test_revoking_withdraws_an_open_invitation(folder: Path) -> None:
    token = invite(folder, "north")
    assert revoke(folder, "north") == 1
    with pytest.raises(RefusedError, match="cancelled"):
        admit(folder, serial(token), public(), "node")


def test_revoking_an_unknown_site_names_the_known_ones(folder: Path) -> None:
    invite(folder, "north")
    with pytest.raises(InputError, match="Known: north"):
        revoke(folder, "nroth")


def test_a_member_has_the_date_of_its_last_certificate(folder: Path) -> None:
    join(folder)
    (before,) = members(folder)
    assert before.expires is not None
    renew(folder, "north", public())
    revoke(folder, "north")
    (after,) = members(folder)
    assert after.expires is None
    assert not after.is_active(datetime.now(UTC))


def test_a_site_that_was_revoked_meanwhile_gets_no_new_certificate(folder: Path) -> None:
    join(folder)
    revoke(folder, "north")
    with pytest.raises(RefusedError, match="not-a-site"):
        renew(folder, "north", public())


def test_the_gate_knows_a_site(folder: Path) -> None:
    assert CertificateGate(folder).check(join(folder)) == "north"


def test_the_gate_refuses_a_revoked_site_at_once(folder: Path) -> None:
    gate, certificate = CertificateGate(folder), join(folder)
    assert gate.check(certificate) == "north"
    began = time.monotonic()
    revoke(folder, "north")
    assert gate.check(certificate) is None
    assert time.monotonic() - began < 5  # what is promised is 60


@pytest.mark.parametrize("unit", [SERVER, INVITATION, SITE])
def test_the_gate_refuses_what_the_server_has_not_noted(folder: Path, unit: str) -> None:
    join(folder)
    certificate = open_authority(folder).issue(unit, "north", public(), timedelta(days=1))
    assert CertificateGate(folder).check(certificate.public_bytes(Encoding.DER)) is None


def test_the_gate_refuses_a_noted_number_under_another_ca(folder: Path) -> None:
    certificate = make_authority("Lung-2026").issue(SITE, "north", public(), timedelta(days=1))
    assert CertificateGate(folder).check(certificate.public_bytes(Encoding.DER)) is None


def test_the_gate_refuses_a_certificate_that_expires_while_it_is_in_use(folder: Path) -> None:
    settings = folder / "server.toml"
    text = settings.read_text()
    settings.write_text(
        text.replace("site_certificate_days = 90.0", "site_certificate_days = 2e-5")
    )
    gate, certificate = CertificateGate(folder), join(folder)  # 1.7 s
    assert gate.check(certificate) == "north"
    time.sleep(2)
    assert gate.check(certificate) is None


def test_the_gate_tells_a_site_from_an_invitation(folder: Path) -> None:
    gate, site = CertificateGate(folder), join(folder)
    invitation = invite(folder, "south").certificate.public_bytes(Encoding.DER)
    assert gate.check_invitation(site) is None
    assert gate.check(invitation) is None
    found = gate.check_invitation(invitation)
    assert found is not None
    assert found.name == "south"


@pytest.mark.parametrize("content", [b"", b"no certificate"])
def test_the_gate_refuses_what_is_no_certificate(folder: Path, content: bytes) -> None:
    assert CertificateGate(folder).check(content) is None


def test_the_gate_is_closed_where_the_database_cannot_be_read(folder: Path) -> None:
    certificate = join(folder)
    for path in folder.glob("server.sqlite3*"):
        path.unlink()
    (folder / "server.sqlite3").write_bytes(b"not a database" * 100)
    assert CertificateGate(folder).check(certificate) is None


def test_a_damaged_database_is_a_sentence(folder: Path) -> None:
    for path in folder.glob("server.sqlite3*"):
        path.unlink()
    (folder / "server.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="restore it from a backup"):
        invite(folder, "north")


def test_an_old_copy_of_the_database_admits_nobody_who_is_not_in_it(folder: Path) -> None:
    path = folder / "server.sqlite3"
    before = path.read_bytes()
    certificate = join(folder)
    for extra in folder.glob("server.sqlite3-*"):
        extra.unlink()
    path.write_bytes(before)
    assert CertificateGate(folder).check(certificate) is None
