"""What a command that was refused, or that failed, says: one paragraph, and with --json a document.

Who reads what a command prints as JSON is told of an error in the same way.
"""

import json
import sys
from contextlib import suppress

import click

from wardround.common.runtime.printable import printable

_LONGEST_SAID = 20_000  # characters: a study may be wrong in many places


def run_command(command: click.Command) -> int:
    """Run what was typed and return its exit code; a word that is not known is refused here."""
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        _print_document(error.format_message(), error.exit_code)
        return error.exit_code
    except click.Abort:  # what was asked for was not typed
        sys.stderr.write("Aborted!\n")
        return 1
    return int(code or 0)  # an exit that was asked for has one


def say_refusal(text: str, exit_code: int) -> int:
    """Say it, and return the exit code."""
    text = printable(text, _LONGEST_SAID)
    # One line, however long: a terminal folds it, and a path in it can be copied whole.
    with suppress(OSError):  # the terminal may have been closed
        sys.stderr.write(f"wardround: {text}\n")
    _print_document(text, exit_code)
    return exit_code


def _print_document(text: str, exit_code: int) -> None:
    words = sys.argv[1:]
    asked = words[: words.index("--")] if "--" in words else words
    if "--json" in asked:
        with suppress(OSError):
            sys.stdout.write(json.dumps({"error": text, "exit_code": exit_code}) + "\n")
            sys.stdout.flush()
