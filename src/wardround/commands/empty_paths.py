"""Paths as they are typed: an empty one would be the working folder, which nobody means by it.

It comes of a shell variable that is not set, and ``--out "$OUT"`` would write where one stands.
"""

import os

import click

from wardround.common.errors import InputError


def refuse_empty_paths(command: click.Command) -> click.Command:
    """Have a command, and those below it, refuse an empty path; return it.

    Args:
        command: Is changed.
    """
    for below in getattr(command, "commands", {}).values():
        refuse_empty_paths(below)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type = _GivenPath(parameter.type)
    return command


class _GivenPath(click.Path):
    """A path that is not empty."""

    def __init__(self, plain: click.Path) -> None:
        super().__init__()
        vars(self).update(vars(plain))

    def convert(
        self,
        value: "str | os.PathLike[str]",
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> "str | bytes | os.PathLike[str]":
        """Return the path.

        Raises:
            InputError: It is empty.
        """
        if value == "":
            name = "a path" if param is None else param.opts[0].lstrip("-").upper()
            msg = f"{name} is empty: is a shell variable not set? Name a place; . is this folder."
            raise InputError(msg)
        return super().convert(value, param, ctx)
