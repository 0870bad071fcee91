"""What a package needs beside itself: what its metadata names, and what its code imports."""

import ast
import re
import sys
from collections.abc import Iterator, Set
from email.parser import HeaderParser
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from importlib.util import decode_source

from wardround.common.errors import PackageError
from wardround.common.files.packages.references import normalised
from wardround.common.files.packages.snapshot import Snapshot

# Before anything is looked up: what nearly every network imports.
_USUAL = frozenset({"torch", "numpy", "monai", "wardround"})


def dependencies_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield what a package's metadata names, beside what Wardround itself may need."""
    needed = HeaderParser().parsestr(snapshot.metadata_file("METADATA")).get_all("Requires-Dist")
    ours = {_first_name(one) for one in requires("wardround") or ()} | {"wardround"}
    for line in needed or ():
        name = _first_name(line)
        if name and name not in ours and "extra ==" not in line.replace("'", '"'):
            yield name


def require_hashed_imports(snapshot: Snapshot, hashed: Set[str], tops: Set[str]) -> None:
    """Check that all that a package's code imports is hashed, or comes with Wardround itself.

    A name that is worked out as the code runs is not seen: that is for whoever reads the code.

    Args:
        hashed: The packages that the study names with a hash.
        tops: The first names of their modules.

    Raises:
        PackageError: It imports what no hash of the study stands for.
    """
    for name in sorted(_imported(snapshot) - tops - _USUAL - sys.stdlib_module_names):
        if PathFinder.find_spec(name) is None:
            continue  # not there: its import fails, or the code does without
        owners = _owners(name)
        if owners and owners <= _ours() | hashed:
            continue
        whose = f"of the package {' or '.join(sorted(owners))}" if owners else "of no package"
        remedy = (
            f"add {min(owners)} to [packages] with 'wardround study lock --with {min(owners)}', or "
            if owners
            else ""
        )
        msg = (
            f"the package {snapshot.package} imports {name}, {whose}, whose files no hash of the "
            f"study stands for: {remedy}leave it out of the package."
        )
        raise PackageError(msg)


def _owners(name: str) -> set[str]:
    """Return the installed packages that a module is of; none where their lists cannot be read."""
    try:
        return {normalised(owner) for owner in packages_distributions().get(name, ()) if owner}
    except UnicodeDecodeError:
        return set()


def _imported(snapshot: Snapshot) -> set[str]:
    """Return the first names of all that the modules of a package import by name."""
    found: set[str] = set()
    for path in filter(None, snapshot.modules.values()):
        try:
            tree = ast.parse(decode_source(snapshot.files[path]))
        except (SyntaxError, ValueError, RecursionError):
            continue  # nor can it be imported
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found


@cache
def _ours() -> frozenset[str]:
    """Return the packages that Wardround brings along, with what those need, and so on."""
    found, waiting = set[str](), ["wardround"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or ()
        except (PackageNotFoundError, UnicodeDecodeError):
            continue
        waiting.extend(
            normalised(_first_name(line))
            for line in lines
            if name == "wardround" or "extra ==" not in line.replace("'", '"')
        )
    return frozenset(found)


def _first_name(line: str) -> str:
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip())
    return normalised(found[0]) if found else ""
