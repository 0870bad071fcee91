"""Your own data: a manifest, as a site has one, or a package's function that writes its rows."""

import csv
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import cast

from wardround.common.errors import InputError, PackageError
from wardround.common.files.cache_folder import cache_folder
from wardround.common.files.packages.importing import component, loaded_hash
from wardround.common.files.packages.references import reference_of
from wardround.common.runtime.printable import printable
from wardround.common.study.registry import TASKS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    YOURS_TO_STATE,
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    OptionValue,
)
from wardround.simulations.datasets.locations import given_path


def _load(request: DataRequest) -> Examinations:
    # Reading labels needs the tasks, and these torch: a listing of data sets does without.
    from wardround.simulations.datasets.own_manifest import read_own_manifest

    if not request.text("manifest"):
        msg = (
            "simulation.data = 'folder' needs a manifest: set simulation.options.manifest to a CSV "
            "file with a row an examination."
        )
        raise InputError(msg)
    path = given_path(request.text("manifest"), request.data_root)
    return read_own_manifest(path, request.study, ENTRY.facts("folder"))


def image_columns(study: Study, held: AbstractSet[str] = frozenset()) -> dict[str, str]:
    """Return the manifest's column of each channel, as a site reads it.

    Args:
        study: Names the channels.
        held: The columns there are; channels are also found under ``image``, in one file.
    """
    if study.data.kind == "table":
        return {}
    columns = {name: name if name == "image" else f"image.{name}" for name in study.data.channels}
    if "image" in held and held.isdisjoint(columns.values()):
        return dict.fromkeys(columns, "image")
    return columns


ENTRY = DatasetEntry(
    title="your own manifest",
    licence=YOURS_TO_STATE,
    citation="",
    homepage="",
    modality="any that a site can read",
    task="any; sites from the column 'site', or from a split",
    tasks=tuple(TASKS),
    load=_load,
    options={"manifest": DatasetOption("", "a CSV file laid out as a site's manifest.csv.")},
    is_public=False,
)

_Rows = Sequence[Mapping[str, str]]


def registered_entry(name: str) -> DatasetEntry:
    """Return the entry of a data set of an installed package, ``package:name``.

    It is a function of a folder and of options with defaults; it may write files into the folder,
    and returns a row an examination, with the columns of a manifest. It runs on the researcher's
    machine alone: no hospital is asked for it.

    Raises:
        PackageError: The package is not installed, or registers no such function.
    """
    found = component("datasets", name, None)
    if not callable(found):
        msg = f"{name} is no function that returns the rows of a manifest: tell its author."
        raise PackageError(msg)
    make = cast("Callable[..., _Rows]", found)
    first_line = (inspect.getdoc(make) or name).partition("\n")[0]

    def load(request: DataRequest) -> Examinations:
        from wardround.simulations.datasets.own_manifest import read_own_manifest

        folder = _folder_of(name, request.options)
        manifest = _written(name, make, folder, request.options)
        found = read_own_manifest(manifest, request.study, entry.facts(name))
        return replace(found, notes=(*found.notes, _made_by(name)), manifest=None)

    entry = DatasetEntry(
        title=printable(first_line, 120),
        licence="its package's to state",
        citation="",
        homepage="",
        modality="any that a site can read",
        task="any; sites from the column 'site', or from a split",
        tasks=tuple(TASKS),
        load=load,
        options={key: DatasetOption(value, "of the package.") for key, value in _options(make)},
        is_public=False,  # nobody here knows
    )
    return entry


def _made_by(name: str) -> str:
    named = reference_of(name)
    package = "" if named is None else named.package
    return f"the data set {name} was made by the package {package}, SHA-256 {loaded_hash(package)}."


def _options(make: Callable[..., _Rows]) -> list[tuple[str, OptionValue]]:
    """Return the arguments of a function that have a default of a type that a study can say."""
    taken = inspect.signature(make).parameters.items()
    return [
        (key, one.default) for key, one in taken if type(one.default) in (str, int, float, bool)
    ]


def _folder_of(name: str, options: Mapping[str, OptionValue]) -> Path:
    """Return where a data set is made: another folder for other code, and for other options."""
    named = reference_of(name)
    package = "" if named is None else named.package
    said = json.dumps([name, loaded_hash(package), dict(sorted(options.items()))])
    return cache_folder() / "packages" / package / hashlib.sha256(said.encode()).hexdigest()[:24]


def _written(
    name: str, make: Callable[..., _Rows], folder: Path, options: Mapping[str, OptionValue]
) -> Path:
    """Have a data set made, and write its rows as a manifest."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = {key for key, _ in _options(make)}
        given = {key: value for key, value in options.items() if key in known}
        rows = list(make(folder, **given))  # it may yield them one by one
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
    except Exception as error:  # another's code fails in many ways
        msg = (
            f"{name} could not make its data ({type(error).__name__}: "
            f"{printable(str(error), 200)}): change [simulation.options], or tell its author."
        )
        raise InputError(msg) from None
    return folder / "manifest.csv"
