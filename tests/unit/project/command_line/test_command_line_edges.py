"""The command line where it is used otherwise than in its examples: typos, pipes, odd words."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.project.command_line.test_command_line_words import COMMANDS

_WARDROUND = [sys.executable, "-m", "wardround.cli"]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "wardround")
def test_every_command_takes_h_for_help(wardround, words: tuple[str, ...]) -> None:
    assert wardround(*words, "-h").code == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("simulat",), "simulate"),
        (("study", "chek"), "check"),
        (("runs", "lst"), "list"),
        (("site", "doctr"), "doctor"),
        (("simulate", "--rouns", "3"), "--rounds"),
        (("simulate", "brain-tisue"), "brain-tissue"),
        (("simulate", "--set", "training.lr=1"), "learning_rate"),
    ],
)
def test_what_was_mistyped_is_named_and_what_was_meant_suggested_once(
    wardround, words: tuple[str, ...], meant: str
) -> None:
    said = wardround(*words)
    assert said.code == 2
    assert words[-1].partition("=")[0].rpartition(".")[2] in said.err or words[-2] in said.err
    assert said.err.lower().count("did you mean") == 1
    assert meant in said.err


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_no_escape_code(variables: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    done = subprocess.Popen(
        [*_WARDROUND, "data", "list"], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65_536):
            said += part
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(ours)
    assert done.wait() == 0
    assert b"brain-tissue" in said or len(said) > 100
    assert b"\x1b" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", ""),
        ("simulate", b"\xff\xfe.toml"),
        ("study", "check", ""),
        ("study", "check", b"caf\xe9.toml"),
        ("study", "check", "FOLDER"),
        ("report", ""),
        ("report", "FILE"),
        ("report", b"\xe9"),
        ("site", "status", ""),
        ("model", "show", "FILE"),
        ("runs", "list", "--server", "FILE"),
        ("runs", "list", "--server", ""),
        ("study", "submit", "FOLDER", "--server", "FOLDER"),
        ("study", "canary", "FOLDER"),
        ("study", "new", "FOLDER"),
        ("data", "show", b"\xff"),
        ("simulate", "--set", ""),
        ("simulate", "--out", "FILE"),
    ],
)
def test_odd_words_are_refused_in_a_sentence_and_never_with_a_traceback(
    wardround, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str | bytes, ...]
) -> None:
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FILE").write_text("x")
    monkeypatch.chdir(tmp_path)
    said = wardround(*(os.fsdecode(one) for one in words))
    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    assert "defect" not in said.err
    assert said.err.strip()


@pytest.mark.parametrize("words", [("simulate", b"\xff\xfe.toml"), ("report", b"\xe9")])
def test_bytes_that_are_no_text_are_refused_in_a_sentence_by_a_process_of_its_own(
    tmp_path: Path, words: tuple[str | bytes, ...]
) -> None:
    done = subprocess.run(
        [*(os.fsencode(one) for one in _WARDROUND), *(os.fsencode(one) for one in words)],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    said = done.stderr.decode("utf-8", "backslashreplace")
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert "defect" not in said
    assert said.strip()


_LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("report", _LONG),
        ("withdraw", _LONG, "--site", "north"),
        ("study", "check", f"{_LONG}.toml"),
        ("study", "continue", _LONG, "--out", "next.toml"),
        ("site", "status", _LONG),
        ("site", "monitor", "status", _LONG),
        ("model", "verify", _LONG),
        ("model", "verify-withdrawal", _LONG),
        ("runs", "list", "--server", _LONG),
        ("runs", "promoted", "--shelf", _LONG),
        ("predict", _LONG, "scans", "--out", "out"),
        ("data", "get", _LONG),
    ],
    ids=" ".join,
)
def test_a_name_that_no_disk_takes_is_refused_in_words(wardround, words: tuple[str, ...]) -> None:
    said = wardround(*words)
    assert said.code == 2, said.err
    assert "a defect" not in said.err


def test_a_link_that_leads_to_itself_is_refused_in_words(wardround, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for words in (("report", loop), ("site", "status", loop), ("study", "check", loop / "a.toml")):
        said = wardround(*words)
        assert said.code == 2, said.err
        assert "a defect" not in said.err


def test_a_shelf_that_is_not_there_is_not_an_empty_one(wardround, tmp_path: Path) -> None:
    said = wardround("runs", "promoted", "--shelf", tmp_path / "in-ues")
    assert said.code == 2
    assert "there is no shelf" in said.err


def test_words_that_nobody_can_be_asked_for_are_asked_as_an_option(
    wardround, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.toml").write_text(f'name = "{name}"\n')
    card, north = tmp_path / "south.peer", tmp_path / "north"
    assert wardround("site", "peers", "export", tmp_path / "south", "--out", card).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = wardround("site", "peers", "import", card, "--site", north)
    assert said.code == 2
    assert "give --words" in said.err
    said = wardround("site", "peers", "remove", "west", "--site", north)
    assert "Known: none." in said.err


@pytest.mark.parametrize(
    "words",
    [("withdraw", "abc", "--site"), ("reject", "abc", "--site"), ("model", "abc", "--site")],
)
def test_a_folder_that_is_no_site_is_said_to_be_none(
    wardround, tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = wardround("site", *words, tmp_path)
    assert said.code == 2
    assert "is not a site folder" in said.err


def test_an_empty_list_says_that_it_is_empty(wardround, tmp_path: Path) -> None:
    server = tmp_path / "server"
    made = wardround("server", "init", server, "--name", "Trial", "--public-name", "localhost")
    assert made.code == 0, made.err
    assert "No site's key" in wardround("server", "peers", "list", "--server", server).out


def test_a_command_to_type_next_can_be_copied_where_a_folder_has_a_blank(
    wardround, tmp_path: Path
) -> None:
    site = tmp_path / "our site"
    site.mkdir()
    (site / "site.toml").write_text('name = "north"\n')
    assert f"policy check '{site}'" in wardround("site", "policy", "new", site).out
    study = tmp_path / "a study.toml"
    assert f"study check '{study}'" in wardround("study", "new", study).out
