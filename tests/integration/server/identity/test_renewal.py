"""Renewal without a lost round, and revocation."""

import fcntl
import os
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.client.daemon import certificate_renewal as certificate_watch
from wardround.client.daemon.certificate_renewal import CertificateWatch
from wardround.client.site.credentials import (
    load_site_tls,
    make_client_context,
)
from wardround.client.site.enrolment import join, renew, renew_if_due
from wardround.client.site.server_client import RefusedByServerError, open_link
from wardround.common.errors import InputError
from wardround.common.security.enrolment import (
    STATUS_PATH,
)
from wardround.common.security.tls_key_pair import next_key_path, read_certificate, read_private_key
from wardround.server.identity.certificate_gate import CertificateGate
from wardround.server.identity.membership import revoke


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def renew_often(folder: Path, times: int) -> None:
    for _ in range(times):
        renew(folder)


def test_after_a_renewal_the_old_and_the_new_certificate_both_work(
    consortium: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    tls = load_site_tls(folder)
    old_context = make_client_context(tls)
    old_key = read_private_key(tls.key_path).public_key()
    old = ssl.PEM_cert_to_DER_cert(tls.cert_path.read_text())
    with open_link(tls.address, old_context) as in_use:  # a round is under way on it
        assert in_use.get(STATUS_PATH).status_code == 200
        certificate = renew(folder)
        assert in_use.get(STATUS_PATH).status_code == 200
    with open_link(tls.address, old_context) as again:
        assert again.get(STATUS_PATH).status_code == 200
    renewed = load_site_tls(folder)
    with open_link(renewed.address, make_client_context(renewed)) as client:
        assert client.get(STATUS_PATH).status_code == 200
    gate = CertificateGate(consortium.folder)
    new = certificate.public_bytes(Encoding.DER)
    assert [gate.check(old), gate.check(new)] == ["north", "north"]
    assert read_private_key(renewed.key_path).public_key() != old_key
    assert renewed.key_path.stat().st_mode & 0o777 == 0o600


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(
    consortium: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    assert not renew_if_due(folder)
    let_it_become_due(consortium, folder)
    assert left(folder) < timedelta(minutes=21)
    assert renew_if_due(folder)
    assert left(folder) > timedelta(days=89)


def left(folder: Path) -> timedelta:
    return load_site_tls(folder).expires - datetime.now(UTC)


def let_it_become_due(consortium: Any, folder: Path) -> None:
    """Give a site a certificate of 20 minutes that began an hour ago: a third is not left."""
    settings = consortium.folder / "server.toml"
    text = settings.read_text()
    settings.write_text(
        text.replace("site_certificate_days = 90.0", f"site_certificate_days = {20 / 60 / 24}")
    )
    renew(folder)
    settings.write_text(text)


def serial(folder: Path) -> int:
    return read_certificate(load_site_tls(folder).cert_path).serial_number


def test_a_watch_renews_what_is_due_and_whoever_renews_the_daemon_is_told(
    consortium: Any, tmp_path: Path
) -> None:
    folder, told, troubles = tmp_path / "north", [], []
    join(consortium.invite("north"), folder)
    watch = CertificateWatch(folder, lambda: told.append(serial(folder)), troubles.append)
    watch.look()
    assert told == []
    let_it_become_due(consortium, folder)  # by another hand, as with 'wardround site renew'
    watch.look()
    watch.look()  # it looks at once whether the new one is due too
    watch.look()
    assert len(set(told)) == 2
    assert told[-1] == serial(folder)
    assert left(folder) > timedelta(days=89)
    assert troubles == []


def test_a_watch_works_in_its_own_thread_until_told_to_stop(
    consortium: Any, tmp_path: Path
) -> None:
    folder, renewed, stop = tmp_path / "north", threading.Event(), threading.Event()
    join(consortium.invite("north"), folder)
    let_it_become_due(consortium, folder)
    threads = threading.active_count()
    CertificateWatch(folder, renewed.set, lambda _: None).start(stop)
    assert renewed.wait(10)
    assert left(folder) > timedelta(days=89)
    stop.set()
    until = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_a_watch_that_cannot_renew_says_so_and_goes_on_with_the_old_certificate(
    consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told, troubles = tmp_path / "north", [], []
    join(consortium.invite("north"), folder)
    let_it_become_due(consortium, folder)
    revoke(consortium.folder, "north")
    monkeypatch.setattr(certificate_watch, "_RENEWAL_SECONDS", 0.0)
    watch = CertificateWatch(folder, lambda: told.append(1), troubles.append)
    watch.look()
    watch.look()
    assert troubles == ["renewal", "renewal"]
    assert told == []
    assert left(folder) < timedelta(minutes=21)


def test_a_new_certificate_that_cannot_be_read_yet_is_looked_at_again(
    consortium: Any, tmp_path: Path
) -> None:
    folder, told = tmp_path / "north", []
    join(consortium.invite("north"), folder)

    def use() -> None:
        told.append(1)
        if len(told) == 1:
            msg = "half of it is there"
            raise InputError(msg)

    watch = CertificateWatch(folder, use, lambda _: None)
    renew(folder)
    watch.look()
    watch.look()
    watch.look()
    assert told == [1, 1]


def test_a_renewal_that_fails_changes_nothing(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    before = everything_below(folder)
    revoke(consortium.folder, "north")
    with pytest.raises(RefusedByServerError, match="does not accept"):
        renew(folder)
    assert {**everything_below(folder), "keys/.renewal.lock": b""} == {
        **before,
        "keys/.renewal.lock": b"",
    }


def test_a_renewal_killed_between_its_two_files_is_finished_by_the_next_start(
    consortium: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    tls = load_site_tls(folder)
    old_key = tls.key_path.read_bytes()
    renew(folder)
    os.rename(tls.key_path, next_key_path(tls.key_path))  # as it is before the last step
    tls.key_path.write_bytes(old_key)
    tls.key_path.chmod(0o600)
    tls = load_site_tls(folder)
    with open_link(tls.address, make_client_context(tls)) as client:
        assert client.get(STATUS_PATH).status_code == 200
    assert not next_key_path(tls.key_path).exists()


def test_a_renewal_waits_for_no_other(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    with (folder / "keys" / ".renewal.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another renewal"):
            renew(folder)
    renew(folder)


def test_two_renewals_at_a_time_do_not_mix_their_keys(consortium: Any, tmp_path: Path) -> None:
    folder, results = tmp_path / "north", []
    join(consortium.invite("north"), folder)

    def run() -> None:
        try:
            renew(folder)
            results.append("renewed")
        except InputError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refusal = f"another renewal is under way in {folder / 'keys'}: wait for it."
    assert set(results) <= {"renewed", refusal}
    assert "renewed" in results
    tls = load_site_tls(folder)
    with open_link(tls.address, make_client_context(tls)) as client:
        assert client.get(STATUS_PATH).status_code == 200


def test_a_site_that_renews_without_end_is_stopped(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    with pytest.raises(RefusedByServerError, match="as many certificates"):
        renew_often(folder, 16)


def test_a_revoked_site_is_refused_on_a_connection_that_is_open(
    consortium: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    renew(folder)
    tls = load_site_tls(folder)
    with open_link(tls.address, make_client_context(tls)) as client:
        assert client.get(STATUS_PATH).status_code == 200
        assert revoke(consortium.folder, "north") == 2
        assert client.get(STATUS_PATH).json() == {"refused": "not-a-site"}


def test_a_revoked_site_may_be_invited_and_joins_anew(consortium: Any, tmp_path: Path) -> None:
    folder = tmp_path / "north"
    join(consortium.invite("north"), folder)
    with pytest.raises(InputError, match="take that from it first"):
        consortium.invite("north")
    revoke(consortium.folder, "north")
    node_key = (folder / "keys" / "node.key").read_bytes()
    token = consortium.invite("north")
    with pytest.raises(InputError, match="--again"):
        join(token, folder)
    join(token, folder, again=True)
    tls = load_site_tls(folder)
    with open_link(tls.address, make_client_context(tls)) as client:
        assert client.get(STATUS_PATH).status_code == 200
    assert (folder / "keys" / "node.key").read_bytes() == node_key
