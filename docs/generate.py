"""Writes the pages that follow from the code: ``python docs/generate.py``.

``docs/reference/files.md`` lists every module with its first line, the tree of folders in
``docs/reference/architecture.md`` comes from the packages' first lines, and
``docs/reference/cli.md`` from the commands' own help, ``python.md`` from the public names'
signatures, ``checklists.md`` from the fields of model card and data sheet, ``study-keys.md`` and
``settings-keys.md`` from the models that check the files, and ``json.md`` from the classes that are
printed. A test fails where a page is older than the code.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

sys.path.insert(0, str(Path(__file__).parent))  # a test loads this file by its path

from json_tables import json_page
from key_pages import settings_page, study_keys_page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("client", "common", "server", "simulations")
FILES = ROOT / "docs" / "reference" / "files.md"
ARCHITECTURE = ROOT / "docs" / "reference" / "architecture.md"
CLI = ROOT / "docs" / "reference" / "cli.md"
STUDY_KEYS = ROOT / "docs" / "reference" / "study-keys.md"
SETTINGS_KEYS = ROOT / "docs" / "reference" / "settings-keys.md"
JSON = ROOT / "docs" / "reference" / "json.md"
CHECKLISTS = ROOT / "docs" / "reference" / "checklists.md"
PYTHON = ROOT / "docs" / "reference" / "python.md"
ROOMS = ("wardround", "wardround.data", "wardround.strategies", "wardround.privacy")
_BEGIN, _END = "<!-- generated: folders -->\n", "<!-- end -->\n"
_WIDTH = 24
_WIDEST = 80


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
    lines = ["```text\n"]
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


def cli_page() -> str:
    """Return the page that lists every command with its arguments and options.

    The texts are those of the commands themselves, not of a rendered help: rich would take words
    in square brackets for markup and leave them out.
    """
    import typer

    from wardround.cli import app

    parts = [
        "# Every command\n\nWritten by `python docs/generate.py` from the commands themselves.\n",
        EXIT_CODES,
    ]
    for words, command in _commands(typer.main.get_command(app), ()):
        parts.append(_command_section(words, command))
    return "".join(parts)


EXIT_CODES = """
## Exit codes

| code | meaning | for example |
|---|---|---|
| 0 | it did what it was asked for; a check found nothing wrong | also with nothing to do |
| 1 | a check found something, a part of many failed; or a defect, which says so | `site doctor` |
| 2 | what was typed, or a file that it names, was refused; nothing was done | an unknown option |
| 3 | it could not go on, or what was asked about is not well | a failed run, a full disk |
| 130 | a person stopped it with Ctrl-C | a simulation goes on with `--resume` |

A process that a signal ends has 128 and the signal's number, as the shell counts.
"""


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _commands(inner, (*words, name))


def _command_section(words: tuple[str, ...], command: Any) -> str:
    text, _, example = command.help.partition("Example: ")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    needed = [one for one in command.params if one.required and one not in arguments]
    usage = " ".join(["wardround", *words, *map(_argument, arguments), *map(_option, needed)])
    lines = [f"\n## `wardround {' '.join(words)}`\n\n{text.strip()}\n\n```\n{usage} [OPTIONS]\n"]
    lines += [f"\n# for example\n{' '.join(example.split())}\n" if example else "", "```\n"]
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    rows = [_row(one, _help(hints[one.name])) for one in command.params]
    if rows:
        lines += ["\n| | | default |\n|---|---|---|\n", *rows]
    return "".join(lines)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _option(parameter: Any) -> str:
    value = "" if parameter.is_flag else f" {parameter.metavar or _kind(parameter)}"
    return ", ".join([*parameter.opts, *parameter.secondary_opts]) + value


def _help(hint: Any) -> str:
    """Return a parameter's help as it was written: some versions of click drop an argument's."""
    return " ".join((hint.__metadata__[0].help or "").split())


def _row(parameter: Any, text: str) -> str:
    """Return the row of an argument or an option: its names, its help, its default."""
    is_argument = parameter.param_type_name == "argument"
    names = _argument(parameter) if is_argument else _option(parameter)
    cells = (f"`{names}`", text, _default(parameter))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, "") or parameter.default is False:
        return ""
    return f"`{parameter.opts[0] if parameter.default is True else parameter.default}`"


def _kind(parameter: Any) -> str:
    name = str(parameter.type.name).split()[0].upper()
    return name if parameter.nargs == 1 else f"{name}..."


def _folders(top: Path) -> Iterator[Path]:
    yield top
    for child in sorted(top.iterdir()):
        if (child / "__init__.py").exists():
            yield from _folders(child)


def checklists_page() -> str:
    """Return the page that says which item of a checklist is answered where, and by whom."""
    from wardround.common.models.documents.checklists import ITEMS

    fields = _document_fields()
    lines = [CHECKLISTS_HEAD]
    for checklist in dict.fromkeys(item.checklist for item in ITEMS):
        lines.append(
            f"\n## {checklist}\n\n| item | about | answered in | by |\n|---|---|---|---|\n"
        )
        for item in ITEMS:
            if item.checklist == checklist:
                number = item.number if item.checked else f"{item.number} *"
                found = [(place, who) for key in item.fields for place, who in fields[key]]
                places = "; ".join(dict.fromkeys(place for place, _ in found))
                people = "; ".join(dict.fromkeys(who for _, who in found))
                lines.append(f"| {number} | {item.subject} | {places} | {people} |\n")
    return "".join(lines)


CHECKLISTS_HEAD = """# Checklists

Which item of a checklist is answered in which field of a run's model card or data sheet, and who
answers it: the tool, from the run, or a person.
[Documenting a model](../how-to/document-a-model.md) says how they come about. Written by
`python docs/generate.py` from the fields themselves.

Items and their subjects are in our words and short: they say where to look, not what the checklist
demands. Numbers without a star agree with published summaries, those with one are from memory: they
are **to be checked against the original** before you cite them. Items that no document of a run can
answer, such as the wording of an abstract, are left out.

Sources: Collins et al., TRIPOD+AI, BMJ 2024. Regulation (EU) 2024/1689 (AI Act), Annex IV.
Tejani et al., CLAIM 2024 update, Radiology: Artificial Intelligence 2024. Lekadir et al.,
FUTURE-AI, BMJ 2025.
"""


def _document_fields() -> dict[str, list[tuple[str, str]]]:
    """Return where each field stands, and who fills it."""
    from wardround.common.models.card import Origin, card_fields
    from wardround.common.models.contract import Contract, study_content
    from wardround.common.study.loading import parse_study
    from wardround.simulations.report.contents import RunContents
    from wardround.simulations.report.documents.data_sheet import sheet_fields
    from wardround.simulations.run_files.folder import RunFacts

    described = {"name": "any", "task": "classification", "description": "any"}
    study = parse_study(
        {
            "study": described,
            "data": {"classes": ["a", "b"], "size": [8, 8]},
            "model": {"network": "small-cnn"},
        }
    )
    contract = Contract(
        wardround="0",
        name="any",
        study=study_content(study),
        study_digest=study.digest,
        parameters="0" * 64,
    )
    facts = RunFacts("0", ("wardround",), study.digest, 0, "")
    run = RunContents(ROOT, facts, study, "", (), (), (), None)
    found: dict[str, list[tuple[str, str]]] = {}
    documents = (
        ("card", card_fields(contract, study, Origin(("any",), ("any",), "any"), ())),
        ("data sheet", sheet_fields(run)),
    )
    for document, fields in documents:
        for field in fields:
            place = f"{document}: {field.title}"
            found.setdefault(field.key, []).append((place, field.filled_by or "the tool"))
    return found


def python_page() -> str:
    """Return the page that lists every public name of Python with its signature."""
    parts = [
        "# Every name in Python\n\nWritten by `python docs/generate.py` from the code. "
        "[Wardround from Python](python-api.md) shows them at work.\n"
    ]
    for room in ROOMS:
        package = importlib.import_module(room)
        parts.append(f"\n## {room}\n\n{_as_markdown(inspect.getdoc(package) or '')}\n")
        for name in sorted(package.__all__, key=str.casefold):
            public = getattr(package, name)
            if inspect.isclass(public) or inspect.isfunction(public):
                parts.append(_name_section(name, public))
    return "".join(parts)


def _name_section(name: str, public: Any) -> str:
    lines = [f"\n### `{name}`\n\n"]
    if inspect.isfunction(public):
        lines.append(f"```text\n{name}{_signature(public)}\n```\n\n")
    lines.append(f"{_as_markdown(inspect.getdoc(public) or '')}\n")
    if inspect.isclass(public) and not issubclass(public, Exception):
        for method, held in vars(public).items():
            function = held.fget if isinstance(held, property) else held
            if inspect.isfunction(function) and not method.startswith("_"):
                called = (
                    "" if isinstance(held, property) else " ".join(_signature(function).split())
                )
                first = (inspect.getdoc(function) or "").partition("\n\n")[0]
                lines.append(f"\n- `.{method}{called}`: {_as_markdown(' '.join(first.split()))}\n")
    return "".join(lines)


def _signature(function: Any) -> str:
    """Return how a function is called, an argument a line where they are many."""
    signature = inspect.signature(function)
    arguments = [_parameter(one) for one in signature.parameters.values() if one.name != "self"]
    kinds = [one.kind for one in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        arguments.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    end = f" -> {_annotation(signature.return_annotation)}"
    shown = f"({', '.join(arguments)}){end}"
    if len(shown) <= _WIDEST or not arguments:
        return shown
    return "(\n" + "".join(f"    {one},\n" for one in arguments) + f"){end}"


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    default = "" if one.default is one.empty else f" = {one.default!r}"
    return f"{stars}{one.name}: {_annotation(one.annotation)}{default}"


def _annotation(annotation: Any) -> str:
    """Return a type without the modules that it stands in."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"[\w.]+\.(\w+)", r"\1", text.replace("'", ""))


def _as_markdown(text: str) -> str:
    """Return a docstring in Google's style as Markdown."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.replace("``", "`"))
    lines: list[str] = []
    is_section = False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            is_section = True
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif is_section and (item := re.match(r" {4}([\w, .]+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif is_section and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            is_section = is_section and not line
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    PYTHON.write_text(python_page(), encoding="utf-8")
    FILES.write_text(files_page(), encoding="utf-8")
    ARCHITECTURE.write_text(architecture_page(), encoding="utf-8")
    CLI.write_text(cli_page(), encoding="utf-8")
    CHECKLISTS.write_text(checklists_page(), encoding="utf-8")
    STUDY_KEYS.write_text(study_keys_page(), encoding="utf-8")
    SETTINGS_KEYS.write_text(settings_page(), encoding="utf-8")
    JSON.write_text(json_page(), encoding="utf-8")
