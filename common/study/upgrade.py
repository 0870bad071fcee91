"""An older study file in today's version: line by line, so comments and order stay.

What was rewritten is read again and held against the content that the older file stands for. If
they differ (keys in an inline table, say) nothing is written and a person is told which keys to
change.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from wardround.common.errors import StudyError
from wardround.common.study.loading import parse_study
from wardround.common.study.versions import KEY, STEPS, Step, brought_up, newest, version_of

_HEADER = re.compile(r"\s*\[{1,2}\s*([\w.\-]+)\s*\]{1,2}\s*(#.*)?$")
_ASSIGNED = re.compile(r"(?P<indent>\s*)(?P<key>[\w.\-]+)(?P<rest>\s*=.*)$")


@dataclass(frozen=True)
class Upgrade:
    """A study file in the newest version.

    Attributes:
        text: The file.
        before: The version that it was written in.
        says: What changed, a sentence a version.
        digest: What hospitals approve from now on.
    """

    text: str
    before: int
    says: tuple[str, ...]
    digest: str


def upgrade(text: str, origin: str) -> Upgrade | None:
    """Return a study file in the newest version; None if it is written in that.

    Raises:
        StudyError: It is not TOML or not a study, or cannot be rewritten line by line.
    """
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{origin} is not a TOML file: {error}. Mend that line."
        raise StudyError(msg) from None
    before = version_of(content, origin)
    study = parse_study(content, origin, planned=False)
    steps = STEPS[before - 1 :]
    if not steps:
        return None
    lines = text.splitlines()
    for step in steps:
        lines = _rewritten(lines, step)
    written = "\n".join(_with_version(lines)) + "\n"
    if not _is_same(written, brought_up(content, origin)):
        msg = (
            f"{origin} cannot be rewritten line by line. Change these keys by hand, and write "
            f"'{KEY} = {newest()}' at the top: {', '.join(_touched(steps))}."
        )
        raise StudyError(msg)
    return Upgrade(written, before, tuple(step.says for step in steps), study.digest)


def _is_same(written: str, content: dict[str, object]) -> bool:
    try:
        read = tomllib.loads(written)
    except ValueError:
        return False
    return read.pop(KEY, None) == newest() and read == content


def _touched(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        yield from (f"{old} is now {new}" for old, new in step.renamed.items())
        yield from (f"{key} is gone" for key in step.removed)
        for key, value in step.added.items():
            yield f"{key} = {_literal(value)} where it is not said"


def _rewritten(lines: list[str], step: Step) -> list[str]:
    """Return the lines with what a step renames and removes, and behind them what it adds."""
    kept: list[str] = []
    said: set[str] = set()
    table = ""
    for line in lines:
        if header := _HEADER.match(line):
            table = header[1]
        elif assigned := _ASSIGNED.match(line):
            full = f"{table}.{assigned['key']}" if table else assigned["key"]
            said.add(full)
            if full in step.removed:
                continue
            if full in step.renamed:
                name = step.renamed[full].removeprefix(f"{table}.")
                kept.append(f"{assigned['indent']}{name}{assigned['rest']}")
                continue
        kept.append(line)
    for key, value in step.added.items():
        if key not in said:
            kept = _with_key(kept, key, value)
    return kept


def _with_key(lines: list[str], key: str, value: object) -> list[str]:
    """Return the lines with a key at the end of its table, or in a table of its own at the end."""
    table, _, name = key.rpartition(".")
    new, at, here = f"{name} = {_literal(value)}", -1, not table
    for row, line in enumerate(lines):
        header = _HEADER.match(line)
        here = header[1] == table if header else here
        if here and (header or _ASSIGNED.match(line)):
            at = row + 1
    return [*lines[:at], new, *lines[at:]] if at >= 0 else [*lines, "", f"[{table}]", new]


def _with_version(lines: list[str]) -> list[str]:
    """Return the lines with the newest version, in its place or before the first key or table."""
    said = f"{KEY} = {newest()}"
    first_table = next((at for at, line in enumerate(lines) if _HEADER.match(line)), len(lines))
    for at, line in enumerate(lines[:first_table]):
        held = _ASSIGNED.match(line)
        if held and held["key"] == KEY:
            comment = re.search(r"\s*#.*$", held["rest"])
            return [*lines[:at], said + (comment[0] if comment else ""), *lines[at + 1 :]]
    at = next((at for at, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines))
    return [*lines[:at], said, "", *lines[at:]]


def _literal(value: object) -> str:
    import tomli_w

    return tomli_w.dumps({"value": value}).partition("= ")[2].strip()
