"""The commands of joining, as an operator and a hospital's engineer type them."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.server.service.supervisor import hold_server


@pytest.fixture
def token(consortium: Any, wardround: Callable[..., Any]) -> str:
    said = wardround("server", "invite", "north", "--server", consortium.folder)
    assert said.code == 0
    assert "once, until" in said.err
    return str(said.out)


def test_a_machine_reads_an_invitation_as_json(
    consortium: Any, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    words = ("server", "invite", "north", "--server", consortium.folder, "--json")
    printed = json.loads(wardround(*words).out)
    assert (printed["site"], printed["file"]) == ("north", None)
    assert printed["expires"] > time.time()
    kept = json.loads(wardround(*words, "--out", tmp_path / "token").out)
    assert (kept["token"], kept["file"]) == (None, str(tmp_path / "token"))
    token = (tmp_path / "token").read_text(encoding="utf-8").strip()
    assert token != printed["token"]
    assert wardround("site", "join", token, "--folder", tmp_path / "north").code == 0


def test_from_an_empty_folder_to_a_member(
    consortium: Any, token: str, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    assert len(token.splitlines()) == 1  # nothing but the token: it can go through a pipe
    north = tmp_path / "north"
    said = wardround("site", "join", token.strip(), "--folder", north)
    assert said.code == 0, said.err
    assert "wardround site doctor" in said.out
    assert wardround("site", "renew", north).code == 0
    assert "Took 2" in wardround("server", "revoke", "north", "--server", consortium.folder).out
    refused = wardround("site", "renew", north)
    assert refused.code == 3
    assert "ask the server's operator for an invitation" in refused.err


def test_a_token_may_come_from_standard_input(
    token: str, tmp_path: Path, wardround: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(token))
    assert wardround("site", "join", "-", "--folder", tmp_path / "north").code == 0


def test_without_a_folder_the_sites_name_is_taken(
    token: str, tmp_path: Path, wardround: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wardround("site", "join", token.strip()).code == 0
    assert (tmp_path / "north" / "site.toml").exists()


def test_a_damaged_token_is_a_sentence(tmp_path: Path, wardround: Callable[..., Any]) -> None:
    said = wardround("site", "join", "wardround-abc", "--folder", tmp_path / "north")
    assert said.code == 2
    assert "copy the whole line" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_is_made_and_renewed(tmp_path: Path, wardround: Callable[..., Any]) -> None:
    words = ("--name", "Lung-2026", "--public-name", "fl.example.org")
    made = wardround("server", "init", tmp_path / "server", *words)
    assert made.code == 0
    assert "SHA-256 of the CA certificate" in made.out
    assert "PRIVATE" not in made.out
    assert wardround("server", "renew", tmp_path / "server").code == 0
    again = wardround("server", "init", tmp_path / "server", *words)
    assert again.code == 2
    assert "holds something" in again.err


@pytest.mark.parametrize("command", ["invite", "revoke"])
def test_a_folder_that_is_no_servers_is_named(
    tmp_path: Path, wardround: Callable[..., Any], command: str
) -> None:
    said = wardround("server", command, "north", "--server", tmp_path)
    assert said.code == 2
    assert "wardround server init" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../north", "north\n", "-north", "n" * 65, "n\u0430rth"])
def test_a_name_that_no_site_can_have_is_not_invited(
    consortium: Any, wardround: Callable[..., Any], name: str
) -> None:
    said = wardround("server", "invite", "--server", consortium.folder, "--", name)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_a_token_goes_to_a_file_that_nobody_else_can_read(
    consortium: Any, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    file = tmp_path / "north.token"
    said = wardround("server", "invite", "north", "--server", consortium.folder, "--out", file)
    assert (said.code, said.out) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    joined = wardround("site", "join", file.read_text().strip(), "--folder", tmp_path / "north")
    assert joined.code == 0, joined.err
    again = wardround("server", "invite", "south", "--server", consortium.folder, "--out", file)
    assert again.code == 2
    assert "there already" in again.err


def test_the_example_of_a_manifest_has_rows(
    token: str, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    assert wardround("site", "join", token.strip(), "--folder", tmp_path / "north").code == 0
    header, *rows = (tmp_path / "north" / "manifest.example.csv").read_text().splitlines()
    assert len(rows) >= 2
    assert all(len(row.split(",")) == len(header.split(",")) for row in rows)


def test_a_server_that_starts_is_not_one_that_does_not_run(
    consortium: Any, wardround: Callable[..., Any]
) -> None:
    assert "no server answers" in wardround("server", "status", consortium.folder).err
    with hold_server(consortium.folder):
        said = wardround("server", "status", consortium.folder)
    assert said.code == 3
    assert "is starting" in said.err
    assert "no server answers" in wardround("server", "status", consortium.folder).err
