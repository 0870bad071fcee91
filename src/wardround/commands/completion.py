"""``wardround completion``: what a shell completes, from the commands themselves."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED = "_WARDROUND_COMPLETE"  # set by the script, in the shell's own call of 'wardround'
_PROGRAM = "wardround"
_CLASSES: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


class Shell(StrEnum):
    """A shell that has a script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", show_default=False)],
) -> None:
    """Print a script that has a shell complete commands, options, studies and run folders.

    For bash, add to ~/.bashrc: eval "$(wardround completion bash)"; for zsh the same with zsh in
    ~/.zshrc; for fish: wardround completion fish > ~/.config/fish/completions/wardround.fish

    Example: wardround completion bash > /etc/bash_completion.d/wardround
    """
    kind = _CLASSES[shell.value]
    # The class's own source() asks for the version of whichever bash is found first.
    made = kind(click.Command(_PROGRAM), {}, _PROGRAM, ASKED)
    sys.stdout.write(kind.source_template % made.source_vars())


def answer_shell(command: click.Command) -> bool:
    """Answer a shell that asks what to complete; return whether one did."""
    shell = os.environ.get(ASKED, "").removesuffix("_complete")
    kind = _CLASSES.get(shell)
    if kind is None:
        return False
    asked = kind(command, {}, _PROGRAM, ASKED)
    words, incomplete = asked.get_completion_args()
    found = [*asked.get_completions(words, incomplete), *_names(asked, words, incomplete)]
    lines = dict.fromkeys(asked.format_completion(item) for item in found)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return True


def _names(asked: ShellComplete, words: list[str], incomplete: str) -> list[CompletionItem]:
    """Return the names that fit where a study, a data set or a run folder is wanted."""
    from click.shell_completion import _resolve_context, _resolve_incomplete

    context = _resolve_context(asked.cli, {}, asked.prog_name, words)
    place, rest = _resolve_incomplete(context, words, incomplete)
    if not isinstance(place, click.Parameter):
        return []
    found: list[str] = []
    for names, suggest in _SUGGESTIONS.items():
        if place.name in names and context.info_name not in ("new", "restore", "init", "revoke"):
            found += [one for one in suggest(rest, context) if one.startswith(rest)]
    return [CompletionItem(one) for one in found]


def _studies(incomplete: str, context: click.Context) -> list[str]:
    from wardround.simulations.studies import built_in_names

    files = [str(path) for path in _paths(incomplete) if path.suffix == ".toml" or path.is_dir()]
    takes_names = context.info_name not in ("submit", "canary")
    return [*(built_in_names() if takes_names else ()), *files]


def _runs(incomplete: str, context: click.Context) -> list[str]:
    """Return the folders below what is typed: runs are among them."""
    if context.command_path.startswith("wardround runs"):
        return []  # a run of a server has a name, and no folder here
    return [str(path) for path in _paths(incomplete) if path.is_dir()]


def _data_sets(incomplete: str, context: click.Context) -> list[str]:
    if context.info_name != "show":
        return []
    from wardround.simulations.datasets.catalogue import DATASETS

    return [*DATASETS]


def _paths(incomplete: str) -> list[Path]:
    head, slash, tail = incomplete.rpartition("/")
    folder = Path(head + slash or ".")
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    shown = [path for path in found if path.name.startswith(tail) and path.name[:1] != "."]
    return shown[:200]


_SUGGESTIONS: "dict[tuple[str, ...], Callable[[str, click.Context], list[str]]]" = {
    ("study", "path"): _studies,
    ("run", "folder", "resume", "run_folder", "runs"): _runs,
    ("name",): _data_sets,
}
