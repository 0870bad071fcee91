"""Every ``wardround ...`` of the pages is a command that exists, with options that it has."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from wardround.cli import app
from wardround.simulations.datasets.catalogue import DATASETS
from wardround.simulations.studies import built_in_names

ROOT = Path(__file__).resolve().parents[4]
PAGES = sorted(
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if page.name not in ("log.md", "files.md") and "decisions" not in page.parts
)
COMMANDS = typer.main.get_command(app)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)  # language, content
_QUOTED = re.compile(r"`([^`]+)`")
_ENDS = {"|", "<", ">", "&&", ";"}  # of a command, in a shell
_SETS = re.compile(r"[A-Z_]+=\S*")  # a variable before a command
_PLACEHOLDER = re.compile(r"\[.*\]?|\.\.\.")  # [STUDY] [options]


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield each command of a page, and whether it is whole: in the text it may be a mention."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in _BLOCK.findall(text) if not language]
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        yield line, True  # blocks of "text" are what a command prints
    for quoted in _QUOTED.findall(_BLOCK.sub("", text)):
        yield " ".join(quoted.split()), False


def words_of(line: str) -> list[str] | None:
    """Return the words after ``wardround``, None if a line does not start with it."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    while words and _SETS.fullmatch(words[0]):
        words = words[1:]
    if not words or words[0] != "wardround":
        return None
    end = next((place for place, word in enumerate(words) if word in _ENDS), len(words))
    return [word for word in words[1:end] if not _PLACEHOLDER.fullmatch(word)]


def fault_of(words: list[str], is_whole: bool) -> str:
    """Return what is wrong with a command, "" if nothing is."""
    command: Any = COMMANDS
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            return "" if words or not is_whole else "no command"
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    try:
        given, left, _ = command.make_parser(typer.Context(command)).parse_args(list(words))
    except Exception as error:
        return str(error)
    if left:
        return f"no place for {left}"
    if unknown := _unknown_name(command, given):
        return f"nothing is called {unknown!r}"
    has = {name for name, value in given.items() if isinstance(value, str | list | tuple)}
    lacking = [one.name for one in command.params if one.required and one.name not in has]
    return f"lacks {lacking}" if lacking and is_whole else ""


def _unknown_name(command: Any, given: dict[str, Any]) -> str | None:
    """Return the study or data set that a command names and that is not there."""
    if command.callback.__name__ == "show_data":
        names, value = tuple(DATASETS), given.get("name")
    else:
        names, value = built_in_names(), given.get("study", given.get("path"))
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16,64}", value):
            return None  # the digest of a study that a site was asked for
    if not isinstance(value, str) or value.isupper() or value.endswith(".toml"):
        return None  # a file, or a placeholder
    return None if value in names else value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    faults = []
    for line, is_whole in command_lines(page):
        words = words_of(line)
        fault = fault_of(words, is_whole) if words is not None else ""
        if fault:
            faults.append(f"{line}: {fault}")
    assert not faults


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("wardround simulat brain-tissue", "no command 'simulat'"),
        ("wardround simulate --round 3", "No such option"),
        ("wardround runs show --server s", "lacks ['run']"),
        ("wardround runs list one two", "no place for ['one', 'two']"),
        ("OMP_NUM_THREADS=1 wardround site join - --folder f < token  # why", ""),
        ("wardround simulate [STUDY] [options]", ""),
        ("wardround data show pneumonia-xray", "nothing is called"),
        ("wardround study privacy hart-disease", "nothing is called"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, fault: str) -> None:
    words = words_of(line)
    assert words is not None
    assert fault_of(words, is_whole=True).startswith(fault)
    assert bool(fault_of(words, is_whole=True)) == bool(fault)
