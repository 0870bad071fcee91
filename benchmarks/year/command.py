"""The command line, run in this process through its own front door: 60 commands in a minute."""

import io
import json
import sys
from collections.abc import Collection
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

from wardround.cli import main


class YearFailedError(Exception):
    """A command did not do what the year needs of it."""


def command(*words: object, codes: Collection[int] = (0,)) -> str:
    """Run ``wardround WORDS`` and return what it printed.

    Args:
        codes: The exit codes that are no failure.

    Raises:
        YearFailedError: It ended with another one; says the command and its message.
    """
    said, wrong = io.StringIO(), io.StringIO()
    typed = ["wardround", *map(str, words)]
    code: object = 0
    with patch.object(sys, "argv", typed), redirect_stdout(said), redirect_stderr(wrong):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    if code not in codes:
        msg = f"'{' '.join(typed)}' ended with {code}: {wrong.getvalue().strip()[-1000:]}"
        raise YearFailedError(msg)
    return said.getvalue()


def answer(*words: object, codes: Collection[int] = (0,)) -> Any:
    """Run a command with ``--json`` and return its answer.

    Raises:
        YearFailedError: As of :func:`command`.
    """
    return json.loads(command(*words, "--json", codes=codes))
