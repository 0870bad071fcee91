"""Who asked for JSON gets JSON also where the command is refused or fails."""

import json
from pathlib import Path

import pytest

from wardround.commands import refusals


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("data", "show", "nowehre", "--json"), 2, "nowehre"),
        (("data", "list", "--json", "--tyop"), 2, "--tyop"),
        (("split", "heart-disease", "--json", "--seed", "x"), 2, "not a valid integer"),
        (("split", "--json", "heart-disease", "--sites"), 2, "requires an argument"),
        (("study", "check", "kein-dömäne.toml", "--json"), 2, "kein-dömäne"),
    ],
)
def test_an_error_is_a_document_with_its_sentence_and_exit_code(
    words: tuple[str, ...], code: int, part: str, wardround, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = wardround(*words)
    document = json.loads(said.out)
    assert document.keys() == {"error", "exit_code"}
    assert said.code == document["exit_code"] == code
    assert part in document["error"]
    assert document["error"] in said.err, "the same sentence"


def test_without_json_nothing_is_on_the_standard_output(wardround) -> None:
    assert wardround("data", "show", "nowehre").out == ""
    assert wardround("data", "show", "--", "--json").out == "", "it is a name here"


def test_a_closed_output_is_no_second_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.argv", ["wardround", "data", "list", "--json"])
    monkeypatch.setattr("sys.stdout", Closed())
    assert refusals.say_refusal("it fell.", 3) == 3
