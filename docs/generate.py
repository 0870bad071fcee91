"""Writes the pages that follow from the code: ``python docs/generate.py``.

``docs/reference/files.md`` lists every module with its first line, and the tree of folders in
``docs/reference/architecture.md`` comes from the packages' first lines. A test fails where a page
is older than the code.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("client", "common", "server", "simulations")
FILES = ROOT / "docs" / "reference" / "files.md"
ARCHITECTURE = ROOT / "docs" / "reference" / "architecture.md"
_BEGIN, _END = "<!-- generated: folders -->\n", "<!-- end -->\n"
_WIDTH = 24


def first_line(module: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def files_page() -> str:
    """Return the page that lists every module."""
    parts = [
        "# Every file\n\nWritten by `python docs/generate.py` from the modules' first lines.\n"
    ]
    for folder in (folder for package in PACKAGES for folder in _folders(ROOT / package)):
        modules = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        parts.append(f"\n## {folder.relative_to(ROOT)}/\n\n{first_line(folder / '__init__.py')}.\n")
        if modules:
            parts.append("\n| file | |\n|---|---|\n")
        parts += [f"| `{file.name}` | {first_line(file).replace('|', '/')} |\n" for file in modules]
    return "".join(parts)


def folder_tree() -> str:
    """Return the tree of folders, a line each."""
    lines = ["```\n"]
    for folder in (folder for package in PACKAGES for folder in _folders(ROOT / package)):
        depth = len(folder.relative_to(ROOT).parts) - 1
        name = "  " * depth + folder.name + "/"
        count = len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
        lines.append(f"{name:<{_WIDTH}}{first_line(folder / '__init__.py')}  [{count}]\n")
    return "".join([*lines, "```\n"])


def architecture_page() -> str:
    """Return the architecture page with today's tree of folders."""
    before, _, rest = ARCHITECTURE.read_text(encoding="utf-8").partition(_BEGIN)
    return before + _BEGIN + folder_tree() + _END + rest.partition(_END)[2]


def _folders(top: Path) -> Iterator[Path]:
    yield top
    for child in sorted(top.iterdir()):
        if (child / "__init__.py").exists():
            yield from _folders(child)


if __name__ == "__main__":
    FILES.write_text(files_page(), encoding="utf-8")
    ARCHITECTURE.write_text(architecture_page(), encoding="utf-8")
