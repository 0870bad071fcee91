"""The generated references: every key has a meaning, and ``--json`` prints the keys of its page."""

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wardround.cli import app

ROOT = Path(__file__).resolve().parents[4]
REFERENCE = ROOT / "docs" / "reference"


def docs_module(name: str) -> ModuleType:
    """Return a module of docs/, which is no package."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


OUTPUTS = docs_module("json_outputs").OUTPUTS


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("page", ["study-keys", "settings-keys", "json"])
def test_every_key_of_a_generated_page_says_what_it_means(page: str) -> None:
    text = (REFERENCE / f"{page}.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    assert not [row for row in rows if not row.rstrip("| ").split(" | ")[-1].strip("`| ")]
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_page_on_json_has_every_command_that_prints_it() -> None:
    printing = {
        name
        for name, command in COMMANDS.items()
        if any("--json" in one.opts for one in command.params)
    }
    assert set(OUTPUTS) == printing, "add the command to docs/json_outputs.py"


@pytest.mark.parametrize("command", [name for name, one in OUTPUTS.items() if one.made_in])
def test_the_keys_of_the_page_are_those_that_the_code_puts_together(command: str) -> None:
    output = OUTPUTS[command]
    path, _, function = output.made_in.partition(":")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    held = next(
        one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == function
    )
    made = set(_outermost_keys(held))
    assert made, "the function makes no dictionary"
    assert made <= set(output.keys), made - set(output.keys)
    unmade = set(output.keys) - made
    assert unmade <= {"last_asked"}, f"documented, and made nowhere: {unmade}"


def _outermost_keys(function: ast.AST) -> Iterator[str]:
    """Yield the keys of dictionaries that lie in no other, and those that are set one by one."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant))  # type: ignore[misc]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            key = node.targets[0].slice
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value
        elif not isinstance(node, ast.FormattedValue | ast.Subscript | ast.BinOp):
            yield from _outermost_keys(node)


def test_no_key_of_what_is_printed_as_json_has_a_blank() -> None:
    odd = {f"{name}: {key}" for name, one in OUTPUTS.items() for key in one.keys if " " in key}
    assert not odd


@pytest.mark.parametrize("command", ["study check heart-disease", "data list"])
def test_a_command_prints_the_keys_of_its_page(command: str) -> None:
    words = command.split()
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    printed = json.loads(done.stdout)
    row = printed[0] if isinstance(printed, list) else printed
    assert set(row) == documented(" ".join(words[:2]))


def test_the_plan_of_a_private_study_prints_the_keys_of_its_page() -> None:
    words = ["study", "privacy", "heart-disease-private", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert set(json.loads(done.stdout)) == documented("study privacy")


def documented(command: str) -> set[str]:
    """Return the first table of a command's part of the page."""
    text = (REFERENCE / "json.md").read_text(encoding="utf-8")
    part = text.partition(f"## `wardround {command} --json`")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", part.partition("\nOf `")[0], re.MULTILINE))


def test_the_exit_codes_of_the_page_are_those_of_the_errors() -> None:
    from wardround.common.errors import InputError, RunError

    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    said = page.partition("## Exit codes")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|", said, re.MULTILINE))
    assert set(rows) == {"0", "1", "2", str(RunError.exit_code), "130"}
    assert InputError.exit_code == 2
    assert RunError.exit_code == 3
