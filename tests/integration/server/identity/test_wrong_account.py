"""Commands typed as root (``sudo wardround ...``) on folders of the account that serves them."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.stage import table_study

from wardround.client.doctor.doctor import examine
from wardround.client.policy.policy import POLICY_FILE

pytestmark = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can type as root"
)
OTHER = 65_534  # nobody


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of the other account, as ``/var/lib/wardround`` is; root's own hide it."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, OTHER, OTHER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def site(consortium: Any, home: Path, wardround: Callable[..., Any]) -> Path:
    token = consortium.invite("north").text()
    assert wardround("site", "join", token, "--folder", home / "north").code == 0
    (home / "north" / "manifest.csv").write_text("patient,label\na,x\n")
    return home / "north"


def not_of_its_account(folder: Path) -> list[str]:
    everything = [folder, *folder.rglob("*")]
    return [str(path) for path in everything if path.lstat().st_uid != OTHER]


def read_as_other(path: Path) -> bytes:
    done = subprocess.run(
        ["cat", str(path)],
        user=OTHER,
        group=OTHER,
        extra_groups=[],
        capture_output=True,
        check=True,
    )
    return done.stdout


def test_a_site_that_joins_as_root_is_its_folders_account(site: Path) -> None:
    assert not_of_its_account(site) == [str(site / "manifest.csv")]
    assert read_as_other(site / "keys" / "tls.key").startswith(b"-----BEGIN PRIVATE KEY")


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_what_root_decides_the_daemons_account_can_read(
    site: Path, tmp_path: Path, wardround: Callable[..., Any], command: str
) -> None:
    study = table_study("decided")
    file = tmp_path / "study.toml"
    file.write_text(study.to_toml())
    given = file if command == "approve" else study.digest
    said = wardround("site", command, given, "--site", site)
    assert said.code == 0, said.err
    assert study.digest.encode() in read_as_other(site / "approvals.toml")
    assert not_of_its_account(site) == [str(site / "manifest.csv")]


def test_what_root_renews_the_daemons_account_can_read(
    site: Path, wardround: Callable[..., Any]
) -> None:
    before = (site / "keys" / "tls.key").read_bytes()
    assert wardround("site", "renew", site).code == 0
    assert read_as_other(site / "keys" / "tls.key") != before
    assert not_of_its_account(site) == [str(site / "manifest.csv")]


def test_a_policy_that_root_writes_is_the_sites(site: Path, wardround: Callable[..., Any]) -> None:
    (site / POLICY_FILE).unlink()
    assert wardround("site", "policy", "new", site).code == 0
    assert not_of_its_account(site) == [str(site / "manifest.csv")]


def test_a_server_that_root_makes_and_changes_is_its_folders_account(
    home: Path, wardround: Callable[..., Any]
) -> None:
    server = home / "server"
    words = ("--name", "lab", "--public-name", "localhost")
    assert wardround("server", "init", server, *words).code == 0
    assert wardround("server", "invite", "north", "--server", server).code == 0
    with sqlite3.connect(server / "server.sqlite3") as held:  # so that its -wal is not removed
        held.execute("SELECT count(*) FROM invitations").fetchone()
        assert wardround("server", "invite", "south", "--server", server).code == 0
        assert wardround("server", "renew", server).code == 0
        assert wardround("server", "revoke", "south", "--server", server).code == 0
        assert not_of_its_account(server) == []
    held.close()
    made = home / "ann"
    assert wardround("server", "operator", "ann", "--server", server, "--out", made).code == 0
    assert not_of_its_account(home) == []


@pytest.mark.parametrize("kind", ["site", "server"])
def test_root_does_not_serve_the_folder_of_another_account(
    site: Path, home: Path, wardround: Callable[..., Any], kind: str
) -> None:
    words = ("--name", "lab", "--public-name", "localhost")
    assert wardround("server", "init", home / "server", *words).code == 0
    folder = site if kind == "site" else home / "server"
    refused = wardround(kind, "start", folder)
    assert refused.code == 2
    assert f"wardround {kind} start {folder}" in refused.err
    assert "sudo -u" in refused.err
    assert not [path for path in not_of_its_account(folder) if "manifest" not in path]


def test_the_doctor_asked_by_root_names_what_the_daemons_account_cannot_read(site: Path) -> None:
    for path in (site / POLICY_FILE, site / "keys" / "node.key"):
        os.chown(path, 0, 0)
        path.chmod(0o600)
    checks = {check.name: check for check in examine(site)}
    assert checks["account"].status == "fail"
    assert POLICY_FILE in checks["account"].fact
    assert "keys/node.key" in checks["account"].fact
    assert "chown" in checks["account"].remedy
    assert os.geteuid() == 0
    for path in (site / POLICY_FILE, site / "keys" / "node.key"):
        os.chown(path, OTHER, OTHER)
    checks = {check.name: check for check in examine(site)}
    assert checks["account"].status == "ok"


def test_the_doctor_counts_images_that_the_daemons_account_cannot_read(site: Path) -> None:
    (site / "images").mkdir(mode=0o755)
    for number in range(3):
        image = site / "images" / f"{number}.png"
        image.write_bytes(b"")
        image.chmod(0o644 if number else 0o600)
    rows = "".join(f"p{number},images/{number}.png,x\n" for number in range(3))
    (site / "manifest.csv").write_text(f"patient,image,label\n{rows}")
    checks = {check.name: check for check in examine(site)}
    assert checks["manifest"].status == "fail"
    assert "1 of the files they name may not be read by" in checks["manifest"].fact


@pytest.mark.parametrize("name", ["policy.toml", "keys/node.key", "keys/ca.crt", "site.toml"])
def test_a_service_that_cannot_read_a_file_is_to_be_tried_again(site: Path, name: str) -> None:
    os.chown(site / name, 0, 0)
    (site / name).chmod(0o600)
    drop = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups")
    command = (*drop, sys.executable, "-m", "wardround.cli", "site", "start", str(site))
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode not in (2, 3):
        pytest.skip("the other account cannot use this installation")
    assert done.returncode == 3, done.stderr  # systemd does not restart after 2
    assert name in done.stderr
    assert "Permission denied" in done.stderr
