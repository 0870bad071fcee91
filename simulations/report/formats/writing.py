"""Writes a run's report in one of its formats, and the documents beside it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from wardround.common.errors import InputError, known_names
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.simulations.report.contents import RunContents, read_contents
from wardround.simulations.report.documents.documents import (
    Documents,
    make_documents,
    write_documents,
)
from wardround.simulations.report.formats.markdown import write_markdown
from wardround.simulations.report.formats.pdf import write_pdf
from wardround.simulations.report.page import render_page

Links = Sequence[tuple[str, str]]


def _html(contents: RunContents, _: Documents, links: Links) -> str:
    return render_page(contents, links)


def _pdf(contents: RunContents, _: Documents, links: Links) -> bytes:
    return write_pdf(contents, links)


def _json(contents: RunContents, documents: Documents, _: Links) -> str:
    from wardround.simulations.report.formats.data import write_json

    return write_json(contents, documents)


def _markdown(contents: RunContents, _: Documents, links: Links) -> str:
    return write_markdown(contents, links)


_Write = Callable[[RunContents, Documents, Links], str | bytes]
# How each is written, and how its file ends.
FORMATS: dict[str, tuple[_Write, str]] = {
    "html": (_html, "html"),
    "pdf": (_pdf, "pdf"),
    "json": (_json, "json"),
    "markdown": (_markdown, "md"),
}
_TITLES = {"model-card": "Model card", "data-sheet": "Data sheet"}


def write_report(run_folder: Path, kind: str = "html", out: Path | None = None) -> Path:
    """Write the report of a run, and its model card and data sheet into its folder.

    An unfinished run has a report too: it says what is missing.

    Args:
        kind: A key of FORMATS.
        out: The file; by default ``report.html``, ``.pdf``, ``.json`` or ``.md`` in the run folder.

    Returns:
        The path of the report.

    Raises:
        InputError: The folder is no run folder, a file of it is damaged, the format is not one of
            ours, the report cannot be written there, or packages that it needs are not installed.
    """
    if kind not in FORMATS:
        raise InputError(known_names("format", kind, FORMATS))
    write, ending = FORMATS[kind]
    path = run_folder / f"report.{ending}" if out is None else out
    if path.is_dir():
        msg = (
            f"{path} is a folder: give --out the name of a file, e.g. {path / f'report.{ending}'}."
        )
        raise InputError(msg)
    contents = read_contents(run_folder)
    try:
        documents = make_documents(contents)
        written = write_documents(contents, documents)
        links = [(_TITLES[one.stem], _address(one, path)) for one in written]
        replace_file(path, write(contents, documents, links), BY_UMASK, durable=False)
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): give --out a file that can be written."
        raise InputError(msg) from None
    return path


def _address(document: Path, report: Path) -> str:
    """Return the address of a document for a reader of the report; both may be moved together."""
    return quote(Path(os.path.relpath(document.resolve(), report.resolve().parent)).as_posix())
