"""Renewal without a lost round, and revocation."""

import fcntl
import os
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.client.enrolment import join, renew, renew_if_due
from wardround.client.server_link import RefusedByServerError, open_link
from wardround.client.site_keys import (
    load_site_tls,
    make_client_context,
)
from wardround.common.enrolment import (
    STATUS_PATH,
)
from wardround.common.errors import InputError
from wardround.common.key_pair import next_key_path, read_private_key
from wardround.server.certificate_gate import CertificateGate
from wardround.server.membership import revoke
from wardround.server.settings import open_server


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
    folder, settings = tmp_path / "north", consortium.folder / "server.toml"
    join(consortium.invite("north"), folder)
    assert not renew_if_due(folder)
    text = settings.read_text()
    days = open_server(consortium.folder).settings.site_certificate_days
    # Certificates begin an hour before they are made, so 20 minutes are less than a third.
    settings.write_text(text.replace(f"days = {days}", f"days = {20 / 60 / 24}", 1))
    renew(folder)
    assert load_site_tls(folder).expires - datetime.now(UTC) < timedelta(minutes=21)
    settings.write_text(text)
    assert renew_if_due(folder)
    assert load_site_tls(folder).expires - datetime.now(UTC) > timedelta(days=days - 1)


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
    assert set(results) <= {"renewed", "another renewal of this site is under way: wait for it."}
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
