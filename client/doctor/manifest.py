"""The doctor's look at the manifest, whatever study may come: its rows, and the files it names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.manifest.cells import parse_location
from wardround.client.data.manifest.columns import file_columns
from wardround.client.data.manifest.examination import Location
from wardround.client.data.manifest.files import FileFinder, State
from wardround.client.data.manifest.rows import name_rows
from wardround.client.data.manifest.table import Table, read_table
from wardround.client.doctor.check import FaultError
from wardround.client.site.folder import Site
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError
from wardround.common.files.account import acting_as, owner_of
from wardround.common.runtime.system.files import may_use

_ROWS_NAMED = 10


@dataclass(frozen=True, slots=True)
class NamedFile:
    """What one cell names.

    Attributes:
        location: None where the cell says no place.
        state: Whether a file is there, for the account that the site runs under.
    """

    row: int
    location: Location | None
    state: State


def check_manifest(site: Site) -> str:
    """How many examinations there are, and how many of their files are missing.

    Raises:
        FaultError: It cannot be read, or names files that are missing.
    """
    table = read_site_table(site)
    place = table.place("patient")
    if place is None:
        remedy = "give it a header; manifest.example.csv shows one."
        raise FaultError(fact="the manifest has no column patient", remedy=remedy)
    if not table.lines:
        raise FaultError(fact="the manifest has no rows", remedy="add a row for each examination.")
    patients = {tidy(line.cells[place]) for line in table.lines} - {""}
    fact = f"{len(table.lines)} examinations of {len(patients)} patients"
    named = files_named(site, table)
    missing = [file.row for file in named if file.state not in ("there", "closed")]
    if missing:
        fact += f"; {len(missing)} of the files they name are missing, in {rows_in_words(missing)}"
        raise FaultError(fact=fact, remedy="mount the data, or set data_root in site.toml.")
    closed = [file.row for file in named if file.state == "closed"]
    if closed:
        name = owner_of(site.folder).name
        fact += f"; {len(closed)} of the files they name may not be read by {name}"
        fact += f", in {rows_in_words(closed)}"
        raise FaultError(fact=fact, remedy=f"give the account {name} the right to read them.")
    return fact


def read_site_table(site: Site) -> Table:
    """Return the manifest, which every line of the doctor calls by that word alone.

    Raises:
        FaultError: It cannot be read.
    """
    try:
        return read_table(site.manifest_path)
    except DataError as error:
        said = str(error).replace(f"manifest {site.manifest_path}", "manifest", 1)
        fact, _, remedy = said.partition(": ")
        raise FaultError(fact=fact, remedy=remedy) from None


def is_table(site: Site) -> bool:
    """Whether the manifest can be read at all; :func:`check_manifest` says why not."""
    try:
        read_site_table(site)
    except FaultError:
        return False
    return True


def files_named(site: Site, table: Table) -> list[NamedFile]:
    """Return what the filled cells of the columns image and mask name, in the table's order."""
    owner, columns = owner_of(site.folder), file_columns(table)
    named: list[NamedFile] = []
    with acting_as(owner):
        finder = FileFinder(site.data_root)
        for line in table.lines:
            for cell in filter(None, (line.cells[place] for place in columns)):
                named.append(_look(line.row, cell, finder))
    return named


def _look(row: int, cell: str, finder: FileFinder) -> NamedFile:
    try:
        location = parse_location(cell, lambda file: finder.find(file).path)
    except ValueError:
        return NamedFile(row, None, "missing")
    state = finder.state_of(location.path)
    if state == "there" and not _is_open(location.path):
        state = "closed"
    return NamedFile(row, location, state)


def _is_open(path: Path) -> bool:
    """Whether the account that asks may read a file, or all files of a folder."""
    try:
        files = (path, *path.iterdir()) if path.is_dir() else (path,)
    except PermissionError:
        return False
    return all(may_use(file, os.R_OK) for file in files)


def rows_in_words(rows: Sequence[int]) -> str:
    """Return the first ten rows and how many more there are, each once."""
    return name_rows(list(dict.fromkeys(rows)), _ROWS_NAMED)
