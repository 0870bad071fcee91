"""Your own data: a manifest, as a site has one, with an optional column ``site``."""

import csv
from collections.abc import Set as AbstractSet
from functools import lru_cache
from pathlib import Path

from wardround.client.data.manifest.cells import (
    ARRAY_FILES,
    channel_cells,
    may_hold_channels,
)
from wardround.common.errors import InputError
from wardround.common.study.registry import TASKS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import given_path

_SPLITS = ("", "train", "validation", "test")


def _load(request: DataRequest) -> Examinations:
    if not request.text("manifest"):
        msg = (
            "simulation.data = 'folder' needs a manifest: set simulation.options.manifest to a CSV "
            "file with a row an examination."
        )
        raise InputError(msg)
    path = given_path(request.text("manifest"), request.data_root)
    lines = _read(path)
    study = request.study
    _check_columns(path, set(lines[0]), study)
    rows = tuple(_examination(path, row, line, study) for row, line in enumerate(lines, start=2))
    return Examinations(rows, ENTRY.facts("folder"))


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [
                {key: (value or "").strip() for key, value in line.items() if key}
                for line in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"{path} is not a readable CSV table in UTF-8: save it again as CSV."
        raise InputError(msg) from None
    if not lines:
        msg = f"{path} has no rows: list an examination a row, below a header."
        raise InputError(msg)
    return lines


def _check_columns(path: Path, held: set[str], study: Study) -> None:
    wanted = {"patient", *(covariate.name for covariate in study.data.covariates)}
    wanted |= set(image_columns(study, held).values())
    wanted.add(study.task.column)
    missing = sorted(wanted - held)
    if missing:
        msg = f"{path} lacks the columns {', '.join(missing)}: add them to its header."
        raise InputError(msg)


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


def _examination(path: Path, row: int, line: dict[str, str], study: Study) -> PublicExamination:
    if not line["patient"]:
        msg = f"{path}, row {row}: patient is empty. Give each patient a text of its own."
        raise InputError(msg)
    split = line.get("split", "")
    if split not in _SPLITS:
        msg = f"{path}, row {row}: split = {split!r} is none of train, validation, test, or empty."
        raise InputError(msg)
    return PublicExamination(
        patient=line["patient"],
        images=_images(path, row, line, study),
        label=_label(line.get("label", ""), study),
        mask=_absolute(line.get("mask", ""), path.parent),
        natural_site=line.get("site", ""),
        split=split,
        covariates={c.name: line[c.name] for c in study.data.covariates},
        box=line.get("box", ""),
    )


def _images(path: Path, row: int, line: dict[str, str], study: Study) -> dict[str, str]:
    """Return where each channel lies, in a file of its own or all in one."""
    columns = image_columns(study, line.keys())
    if len(columns) < 2 or set(columns.values()) != {"image"}:
        return {name: _absolute(line[column], path.parent) for name, column in columns.items()}
    if not may_hold_channels(line["image"]):
        msg = (
            f"{path}, row {row}: the column image names one file for {len(columns)} channels: "
            "name a NIfTI file of four axes, or give each channel a column image.CHANNEL."
        )
        raise InputError(msg)
    cells = channel_cells(_absolute(line["image"], path.parent), len(columns))
    return dict(zip(columns, cells, strict=True))


def _label(text: str, study: Study) -> str:
    """Return a label as data sets write it: several classes joined with ``;``, without blanks."""
    if not study.data.multi_label:
        return text
    return ";".join(part.strip() for part in text.replace("|", ";").split(";"))


def _absolute(location: str, folder: Path) -> str:
    """Return a location that holds from any folder; an array's item stays as it is."""
    if not location:
        return ""
    file, sign, item = location.partition("#")
    if not file.lower().endswith(ARRAY_FILES):
        return str((folder / location).resolve())
    return _resolved(folder, file) + sign + item


@lru_cache(maxsize=64)
def _resolved(folder: Path, file: str) -> str:
    """Return an array file's whole path; thousands of rows name the same few files."""
    return str((folder / file).resolve())


ENTRY = DatasetEntry(
    title="your own manifest",
    licence="yours to state",
    citation="",
    homepage="",
    modality="any that a site can read",
    task="any; sites from the column 'site', or from a split",
    tasks=tuple(TASKS),
    load=_load,
    options={"manifest": DatasetOption("", "a CSV file laid out as a site's manifest.csv.")},
)
