"""The page of what ``--json`` prints, from the classes that are printed; for ``generate.py``."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from json_outputs import MESSAGES, OUTPUTS
from json_words import COMMON
from pydantic import BaseModel

_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
_HEAD = """# What `--json` prints

Written by `python docs/generate.py` from the classes that are printed. One document on the
standard output and nothing else; progress and warnings go to the standard error. What is no number
is `null`. The exit code is that of the command without `--json` ([exit
codes](cli.md#exit-codes)). A command that is refused, or fails, prints an object with `error`, the
sentence that stands on the standard error, and `exit_code`. Keys are added without notice; a key
that goes or changes its meaning stands in the [changelog](../../CHANGELOG.md).
"""


def json_page() -> str:
    """Return the page of what every command prints with ``--json``."""
    lines = [_HEAD]
    for command, output in OUTPUTS.items():
        lines.append(f"\n## `wardround {command} --json`\n\nPrints {output.form}.\n\n")
        lines.append("| key | | |\n|---|---|---|\n")
        lines += [f"| `{key}` | | {words} |\n" for key, words in output.keys.items()]
        parts = dict(output.parts)
        if output.of:
            lines += _rows(found_class(output.of), parts, {*output.keys, *output.without})
        shown: set[str] = set()
        while left := [key for key in parts if key not in shown]:
            shown.add(left[0])
            lines.append(f"\nOf `{left[0]}`:\n\n| key | | |\n|---|---|---|\n")
            lines += _rows(found_class(parts[left[0]]), parts, set())
    return "".join(lines)


def found_class(name: str) -> Any:
    """Return the class that an output names."""
    module, _, held = name.partition(":")
    return getattr(importlib.import_module(module), held)


def _rows(of: Any, parts: dict[str, str], known: set[str]) -> Iterator[str]:
    """Yield a row a field, and note which fields hold tables of their own."""
    text = of.__doc__ or ""
    words = {key: " ".join(said.split()) for key, said in _ATTRIBUTE.findall(text)}
    for name, hint in get_type_hints(of, localns=vars(importlib.import_module(MESSAGES))).items():
        if name in known or name not in fields_of(of):
            continue
        for inner in _classes(hint):
            parts.setdefault(name, f"{inner.__module__}:{inner.__qualname__}")
        said = (words.get(name) or COMMON.get(name, "")).replace("``", "`").replace("|", "\\|")
        yield f"| `{name}` | {_type(hint)} | {said[:1].upper() + said[1:]} |\n"


def fields_of(of: Any) -> set[str]:
    """Return the names that a class is printed with."""
    if issubclass(of, BaseModel):
        return set(of.model_fields)
    return {one.name for one in dataclasses.fields(of)}


def _classes(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for one in getattr(hint, "__args__", ()):
        yield from _classes(one)


_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type(hint: Any) -> str:
    """Return a field's type in words, as JSON has it."""
    if hint in _TYPES:
        return _TYPES[hint]
    inner = getattr(hint, "__args__", ())
    if type(None) in inner:
        rest = [one for one in inner if one is not type(None)]
        return " or ".join([*dict.fromkeys(map(_type, rest)), "null"])
    origin = getattr(hint, "__origin__", None)
    if origin in (tuple, list) and inner:
        return f"list: {_type(inner[0])}"
    if origin is dict or "Mapping" in str(origin):
        return "object"
    if dataclasses.is_dataclass(hint):
        return "object"
    return "text" if "Literal" in str(hint) else "value"
