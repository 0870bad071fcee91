"""The command line has one word for one thing: folder and run, site and hospital, study and run."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from tests.unit.project.command_line.test_command_line_words import COMMANDS, ROOT, texts_of_code

_NAMES_A_RUN = re.compile(r"wardround ((?:[a-z-]+ )+)[^'`\n]*?\bRUN\b")
_NO_PAGES = ("log.md", "CHANGELOG.md")  # they tell what was

# Commands whose help speaks of the institution: it decides, agrees or owns. Elsewhere it is a site.
_OF_THE_INSTITUTION = {
    "",
    "sweep",
    "evaluate",
    "study check",
    "study lock",
    "study explain",
    "study upgrade",
    "study submit",
    "runs track",
    "runs withdraw",
    "data landmarks",
}


def placeholders(words: tuple[str, ...]) -> set[str]:
    """Return what the longest command that these words begin with is given."""
    while words not in COMMANDS:
        words = words[:-1]
    return {
        name
        for one in COMMANDS[words].params
        for name in (one.metavar or one.name.upper()).strip("[]").split("|")
    }


def texts() -> Iterator[tuple[Path, str]]:
    for package in ("client", "common", "server", "simulations", "src/wardround"):
        for path in (ROOT / package).rglob("*.py"):
            yield from ((path, text) for text in texts_of_code(path))
    pages = (path for path in (ROOT / "docs").rglob("*.md") if path.name not in _NO_PAGES)
    yield from ((path, path.read_text("utf-8")) for path in (ROOT / "README.md", *pages))


def test_run_is_written_only_where_a_command_takes_a_runs_name() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path, text in texts()
        for found in _NAMES_A_RUN.finditer(text)
        if "RUN" not in placeholders(tuple(found[1].split()))
    ]
    assert not wrong, "a run folder is FOLDER"


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "wardround")
def test_a_run_folder_is_folder_and_a_runs_name_is_run(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    for parameter in command.params:
        if parameter.name != "run" or parameter.param_type_name != "argument":
            continue
        hint: Any = get_type_hints(inspect.unwrap(command.callback), include_extras=True)["run"]
        shown = (parameter.metavar or "RUN").split("|")
        assert ("FOLDER" in shown) == ("folder" in hint.__metadata__[0].help)
        assert ("RUN" in shown) == ("name" in hint.__metadata__[0].help)


@pytest.mark.parametrize(
    "words",
    [words for words in COMMANDS if words[:1] != ("site",)],  # there a hospital's people read
    ids=lambda words: " ".join(words) or "wardround",
)
def test_sites_are_counted_and_asked_and_hospitals_decide(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    helps = [getattr(one, "help", None) or "" for one in command.params]
    said = " ".join([(command.help or "").partition("Example:")[0], *helps])
    if " ".join(words) not in _OF_THE_INSTITUTION:
        assert "hospital" not in said.lower(), "a participant is a site: see the glossary"
    assert not re.search(r"(resume|stop|finish)[a-z]* (a |the )?stud(y|ies)", said), "that is a run"
