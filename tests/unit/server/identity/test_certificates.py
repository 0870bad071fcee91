"""The certificate authority: what it issues, what it recognises, and where its keys lie."""

import base64
import os
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from wardround.client.site.credentials import signing_request
from wardround.common.errors import InputError
from wardround.common.security import tls_key_pair as key_pair
from wardround.common.security.tls_key_pair import (
    mend_pair,
    next_key_path,
    private_pem,
    read_private_key,
    renewing_alone,
)
from wardround.server.identity import server_certificate
from wardround.server.identity.pki import (
    INVITATION,
    SERVER,
    SITE,
    Authority,
    identify,
    make_authority,
    open_authority,
    read_request,
)
from wardround.server.identity.server_certificate import (
    CertificateWatch,
    load_server_tls,
    renew_server_certificate,
    renew_server_if_due,
)
from wardround.server.service.installation import init_server
from wardround.server.settings import open_server

DAY = timedelta(days=1)


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def shown(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("Lung-2026")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_server(tmp_path / "server", "Lung-2026", ["fl.example.org", "10.0.0.7"], "0.0.0.0", 8443)
    return tmp_path / "server"


def test_keys_are_their_owners_alone_even_with_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        init_server(tmp_path / "server", "Lung-2026", ["localhost"], "127.0.0.1", 8443)
    finally:
        os.umask(before)
    ca = tmp_path / "server" / "ca"
    assert {path.name: path.stat().st_mode & 0o777 for path in ca.iterdir()} == {
        ".renewal.lock": 0o600,
        "ca.key": 0o600,
        "server.key": 0o600,
        "ca.crt": 0o644,
        "server.crt": 0o644,
    }
    assert ca.stat().st_mode & 0o777 == 0o700
    assert (ca.parent / "server.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_private_key_is_never_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for the moment between the making of its file and a later chmod."""
    opened: dict[str, int] = {}
    real = os.open

    def watching(path: object, flags: int, mode: int = 0o777, **more: int) -> int:
        descriptor = real(str(path), flags, mode, **more)
        if flags & os.O_CREAT:
            opened[Path(str(path)).name] = os.fstat(descriptor).st_mode & 0o777
        return descriptor

    monkeypatch.setattr(os, "open", watching)
    init_server(tmp_path / "server", "Lung-2026", ["localhost"], "127.0.0.1", 8443)
    keys = {name: mode for name, mode in opened.items() if ".key" in name}
    assert len(keys) == 3  # of the authority, of the server, and with which it signs rounds
    assert set(keys.values()) == {0o600}


def test_openssl_accepts_the_chain_and_the_purpose(folder: Path) -> None:
    """An independent reader of certificates, with its strictest rules."""
    ca = folder / "ca"
    command = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile")
    try:
        done = subprocess.run(
            [*command, ca / "ca.crt", "-verify_hostname", "fl.example.org", ca / "server.crt"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert done.stdout.endswith("OK\n"), done.stderr
    as_client = subprocess.run(
        [*command[:4], "sslclient", "-CAfile", ca / "ca.crt", ca / "server.crt"],
        capture_output=True,
        check=False,
    )
    assert as_client.returncode != 0


def test_the_servers_certificate_names_what_server_toml_does(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate(load_server_tls(folder).cert_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]


def test_the_authority_can_sign_and_what_it_issues_cannot(authority: Authority) -> None:
    leaf = authority.issue(SITE, "north", a_key().public_key(), DAY)
    for certificate, is_ca in ((authority.certificate, True), (leaf, False)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (
            True,
            is_ca,
            0 if is_ca else None,
        )
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (is_ca, not is_ca)


def test_serial_numbers_are_long_and_differ(authority: Authority) -> None:
    key = a_key().public_key()
    serials = {authority.issue(SITE, "north", key, DAY).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert min(serials).bit_length() > 100


def test_no_certificate_outlives_the_authority() -> None:
    authority = make_authority("Lung-2026", life=DAY)
    leaf = authority.issue(SITE, "north", a_key().public_key(), timedelta(days=400))
    assert leaf.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize("unit", [SERVER, SITE, INVITATION])
def test_a_certificate_says_whose_it_is_and_for_what(authority: Authority, unit: str) -> None:
    found = identify(
        shown(authority.issue(unit, "north", a_key().public_key(), DAY)), authority.certificate
    )
    assert found is not None
    assert (found.name, found.unit) == ("north", unit)
    assert found.is_valid(datetime.now(UTC))
    assert not found.is_valid(datetime.now(UTC) + 2 * DAY)


def test_another_authority_of_the_same_name_is_not_believed(authority: Authority) -> None:
    other = make_authority("Lung-2026")
    content = shown(other.issue(SITE, "north", a_key().public_key(), DAY))
    assert identify(content, authority.certificate) is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(2000)])
def test_what_is_no_certificate_is_nobody(authority: Authority, content: bytes) -> None:
    assert identify(content, authority.certificate) is None


def test_the_authority_itself_is_nobody(authority: Authority) -> None:
    assert identify(shown(authority.certificate), authority.certificate) is None


def test_a_request_is_read_only_if_its_own_key_signed_it() -> None:
    pem = signing_request(a_key(), "north")
    found = read_request(pem)
    assert found is not None
    assert found[0] == "north"
    request = x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)
    renamed = request.replace(b"north", b"south")
    assert renamed != request
    text = base64.encodebytes(renamed).decode()
    head, foot = (f"-----{word} CERTIFICATE REQUEST-----\n" for word in ("BEGIN", "END"))
    assert x509.load_pem_x509_csr((head + text + foot).encode()).subject  # it can be read
    assert read_request(head + text + foot) is None


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ],
)
def test_a_request_for_another_kind_of_key_is_not_used(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, digest)
    assert read_request(request.public_bytes(Encoding.PEM).decode()) is None


def test_nothing_but_the_key_of_a_request_is_taken_over(authority: Authority) -> None:
    """Neither a unit nor a CA flag that a site asks for."""
    name = [
        x509.NameAttribute(NameOID.COMMON_NAME, "north"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "server"),
    ]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(a_key(), hashes.SHA256())
    )
    found = read_request(request.public_bytes(Encoding.PEM).decode())
    assert found is not None
    issued = authority.issue(SITE, found[0], found[1], DAY)
    said = identify(shown(issued), authority.certificate)
    assert said is not None
    assert said.unit == SITE
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_renewed_server_keeps_its_authority_and_gets_a_new_key(folder: Path) -> None:
    before = open_authority(folder).certificate
    old = read_private_key(load_server_tls(folder).key_path).public_key()
    assert not renew_server_if_due(folder)
    certificate = renew_server_certificate(folder)
    assert open_authority(folder).certificate == before
    certificate.verify_directly_issued_by(before)
    assert read_private_key(load_server_tls(folder).key_path).public_key() != old


def let_it_become_due(folder: Path) -> None:
    """Make a certificate of 20 minutes that began an hour ago: a third is not left."""
    settings = folder / "server.toml"
    text = settings.read_text()
    short = text.replace("server_certificate_days = 365.0", f"server_certificate_days = {1 / 72}")
    settings.write_text(short)
    renew_server_certificate(folder)
    settings.write_text(text)


def left(folder: Path) -> timedelta:
    return load_server_tls(folder).expires - datetime.now(UTC)


def test_a_certificate_near_its_end_is_renewed(folder: Path) -> None:
    let_it_become_due(folder)
    assert left(folder) < timedelta(minutes=21)
    assert renew_server_if_due(folder)
    assert left(folder) > timedelta(days=364)


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_server_that_runs_looks_again_and_again_whether_renewal_is_due(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(server_certificate, "time", clock)
    watch = CertificateWatch(folder)
    watch.look()
    let_it_become_due(folder)
    watch.look()
    assert left(folder) < timedelta(minutes=21)  # it has just looked
    clock.now += 61
    watch.look()
    assert left(folder) > timedelta(days=364)


def test_a_renewal_that_fails_is_logged_once_an_hour_and_the_old_certificate_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(server_certificate, "time", clock)
    let_it_become_due(folder)
    key = folder / "ca" / "ca.key"
    key.rename(key.with_suffix(".away"))
    watch = CertificateWatch(folder)
    for _ in range(120):
        clock.now += 30
        watch.look()
    assert caplog.text.count("was not renewed") == 1
    assert left(folder) < timedelta(minutes=21)
    key.with_suffix(".away").rename(key)
    clock.now += 3600
    watch.look()
    assert left(folder) > timedelta(days=364)


def test_a_second_renewal_at_the_same_time_is_refused_and_mixes_no_keys(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "ca").iterdir()}
    with (
        renewing_alone(folder / "ca"),
        pytest.raises(InputError, match="another renewal is under way"),
    ):
        renew_server_certificate(folder)
    assert {path: path.read_bytes() for path in (folder / "ca").iterdir()} == before
    renew_server_certificate(folder)


def test_a_renewal_whose_last_step_a_reader_has_done_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, key = key_pair.replace_file, folder / "ca" / "server.key"

    def place_and_be_read(path: Path, content: bytes, mode: int) -> None:
        place(path, content, mode)
        mend_pair(key, path)  # as the link does, which looks every few seconds

    monkeypatch.setattr(key_pair, "replace_file", place_and_be_read)
    certificate = renew_server_certificate(folder)
    assert read_private_key(key).public_key() == certificate.public_key()
    assert not next_key_path(key).exists()


def test_an_expired_server_certificate_is_named(folder: Path) -> None:
    settings = folder / "server.toml"
    text = settings.read_text()
    settings.write_text(text.replace("days = 365.0", "days = 1e-12"))
    renew_server_certificate(folder)
    time.sleep(1.1)  # certificates count in seconds
    with pytest.raises(InputError, match="wardround server renew"):
        load_server_tls(folder)


def test_a_key_that_others_may_read_is_refused(folder: Path) -> None:
    (folder / "ca" / "server.key").chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        load_server_tls(folder)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    path = folder / "ca" / "server.key"
    path.write_bytes(private_pem(a_key()))
    with pytest.raises(InputError, match="not the certificate of the key"):
        load_server_tls(folder)


@pytest.mark.parametrize("step", ["before the certificate", "before the key", "done"])
def test_a_renewal_killed_at_any_step_leaves_a_pair_that_fits(folder: Path, step: str) -> None:
    ca = folder / "ca"
    key, certificate = ca / "server.key", ca / "server.crt"
    old_key, old_certificate = key.read_bytes(), certificate.read_bytes()
    renew_server_certificate(folder)
    if step != "done":
        key.rename(next_key_path(key))
        key.write_bytes(old_key)
        key.chmod(0o600)
    if step == "before the certificate":
        certificate.write_bytes(old_certificate)
    found = mend_pair(key, certificate)
    assert found.public_key() == read_private_key(key).public_key()


@pytest.mark.parametrize(
    ("name", "public", "port", "said"),
    [
        ("", ["localhost"], 8443, "name"),
        ("x" * 65, ["localhost"], 8443, "name"),
        ("Lung", [], 8443, "public_names"),
        ("Lung", ["no such name"], 8443, "public_names"),
        ("Lung", ["-x"], 8443, "public_names"),
        ("Lung", ["localhost"], 0, "port"),
        ("Lung", ["localhost"], 65536, "port"),
    ],
)
def test_a_server_that_cannot_be_leaves_nothing(
    tmp_path: Path, name: str, public: list[str], port: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        init_server(tmp_path / "server", name, public, "127.0.0.1", port)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something"):
        init_server(tmp_path, "Lung", ["localhost"], "127.0.0.1", 8443)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    init_server(tmp_path / "server", "Lung", ["localhost"], "127.0.0.1", 8443)
    assert open_server(tmp_path / "server").settings.address == "localhost:8443"


def test_the_address_of_an_ipv6_server_has_brackets(tmp_path: Path) -> None:
    init_server(tmp_path / "server", "Lung", ["fd00::7"], "::", 8443)
    assert open_server(tmp_path / "server").settings.address == "[fd00::7]:8443"


def test_an_unknown_key_of_server_toml_is_refused(folder: Path) -> None:
    with (folder / "server.toml").open("a") as stream:
        stream.write("paralel_studies = 2\n")
    with pytest.raises(InputError, match="parallel_studies"):
        open_server(folder)
