"""A study by what somebody typed: the name of a built-in one, or the path of a file."""

from pathlib import Path

import typer

from wardround.common.study.loading import load_study
from wardround.common.study.study import Study


def read_study(context: typer.Context, path: Path) -> Study:
    """Return a study; the front door knows built-in ones by name.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    find = context.obj
    return find(str(path)) if callable(find) else load_study(path)
