"""Own tables: a data frame, or columns by name, as clinical values of a study."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from wardround.common.errors import DataError, known_names
from wardround.common.files.usable_path import usable_path
from wardround.simulations.notebook.data.columns import (
    as_labels,
    as_list,
    as_text,
    is_absent,
    is_number,
    rounded,
)
from wardround.simulations.notebook.data.own_data import Draft, OwnData, add_people, write

Columns = dict[str, list[Any]]
_MOST_VALUES = 50


def from_table(  # noqa: PLR0913 # one argument a column that is no value
    folder: "str | PathLike[str]",
    table: Any,
    label: str,
    *,
    patient: str | None = None,
    site: str | None = None,
    split: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    replace: bool = False,
) -> OwnData:
    """Write a table of clinical values down as the data of some hospitals.

    Numbers and truth values enter the network scaled by mean and deviation of the column, texts as
    one column a value; a column with missing values is optional.

    Args:
        folder: Is made; where it holds just this already, nothing is written.
        table: A pandas data frame, columns by name, a list of rows by name, or a CSV file.
        label: The column with the class.
        patient: The column that tells patients apart. Without it each row is assumed to be of a
            patient of its own, and an :class:`AssumptionWarning` says so.
        site: The column with the hospital. Without it hospitals are drawn in the simulation.
        split: The column with "train", "validation" or "test"; drawn by patient where absent.
        features: The columns that are learnt from; all others where absent.
        classes: Names in order; those that occur where absent.
        replace: Whether other data of this kind in the folder is overwritten.

    Raises:
        DataError: A column is not there or cannot be used; names rows, from 0.
        InputError: The folder holds something else, or cannot be written.
    """
    columns = columns_of_table(table)
    special = [name for name in (label, patient, site, split) if name is not None]
    chosen = features if features is not None else [n for n in columns if n not in special]
    for name in (*special, *chosen):
        if name not in columns:
            raise DataError(known_names("column", str(name), columns))
    if label in chosen:
        msg = f"features names the label {label!r}: a model would learn what it is told."
        raise DataError(msg)
    if not chosen:
        msg = "no column is left to learn from: name some in features=."
        raise DataError(msg)
    rows = len(columns[label])
    draft = Draft("classification", (), rows)
    add_people(
        draft,
        None if patient is None else columns[patient],
        None if site is None else columns[site],
        None if split is None else columns[split],
        "rows",
    )
    found = as_labels(columns[label], classes)
    draft.columns["label"], draft.classes = found.texts, found.classes
    draft.say("data", kind="table")
    add_covariates(draft, {name: columns[name] for name in chosen}, rows)
    return write(draft, usable_path(folder, "the folder of the data"), replace)


def columns_of_table(table: Any) -> Columns:
    """Return a table as columns of plain values by name.

    Raises:
        DataError: It is no table, has no rows, or two columns of one name.
    """
    if isinstance(table, str | PathLike):
        return _columns_of_file(Path(table))
    if hasattr(table, "columns") and hasattr(table, "to_dict"):  # a data frame
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"the table has two columns {twice!r}: rename one."
            raise DataError(msg)
        pairs = [(n, table.iloc[:, at]) for at, n in enumerate(names)]
        found = {name: as_list(column.tolist(), name) for name, column in pairs}
    elif isinstance(table, Mapping):
        found = {str(name): as_list(column, str(name)) for name, column in table.items()}
    elif isinstance(table, Sequence) and table and all(isinstance(r, Mapping) for r in table):
        names = list(dict.fromkeys(str(name) for row in table for name in row))
        found = {name: [row.get(name) for row in table] for name in names}
    else:
        msg = (
            f"the table is {type(table).__name__}: give a pandas data frame, columns by name, a "
            "list of rows by name, or a CSV file."
        )
        raise DataError(msg)
    lengths = {name: len(column) for name, column in found.items()}
    if not lengths or not max(lengths.values()):
        msg = "the table has no rows: give one a patient."
        raise DataError(msg)
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in list(lengths.items())[:5])
        msg = f"the columns have different lengths ({said}): give a value a row in each."
        raise DataError(msg)
    return found


def _columns_of_file(path: Path) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"the table {path} cannot be read ({type(error).__name__}): give a CSV file in UTF-8."
        raise DataError(msg) from None
    return {
        name: [_number_or_text(value) for value in column]
        for name, column in columns_of_table(rows).items()
    }


def _number_or_text(value: Any) -> Any:
    if is_absent(value):
        return None
    try:
        return float(value)
    except ValueError:
        return value


def add_covariates(draft: Draft, columns: Columns, rows: int) -> None:
    """Add clinical values to the manifest and to the study.

    Raises:
        DataError: A column has another length, another kind of value, or none at all.
    """
    covariates, missing, lacking = [], 0, list[str]()
    for name, values in columns.items():
        if len(values) != rows:
            msg = f"there are {rows} rows and {len(values)} values of {name}: give one for each."
            raise DataError(msg)
        there = [value for value in values if not is_absent(value)]
        missing += len(values) - len(there)
        lacking += [name] if len(there) < len(values) else []
        if name in draft.columns:
            msg = f"a column of clinical values is called {name!r}, as one of ours: rename it."
            raise DataError(msg)
        covariates.append(_covariate(name, there))
        draft.columns[name] = ["" if is_absent(v) else _cell(v) for v in values]
    draft.say("data", covariates=covariates, **({"optional": lacking} if lacking else {}))
    if any("scale" in one for one in covariates):
        draft.assumptions.append(
            "Numbers are scaled by mean and deviation of all rows, test patients among them."
        )
    if missing:
        draft.assumptions.append(
            f"{missing} values are missing, of {', '.join(lacking)}: the network learns what a "
            "missing value of these means."
        )


def _covariate(name: str, there: Sequence[Any]) -> dict[str, Any]:
    if not there:
        msg = f"column {name!r} holds no value: leave it out."
        raise DataError(msg)
    if all(is_number(value) for value in there):
        numbers = [float(value) for value in there]
        if not np.isfinite(numbers).all():
            msg = f"column {name!r} holds a value that is not finite: replace it."
            raise DataError(msg)
        deviation = rounded(statistics.pstdev(numbers))
        return {
            "name": name,
            "mean": rounded(statistics.fmean(numbers)),
            "scale": deviation if deviation > 0 else 1.0,
        }
    if not all(isinstance(value, str) for value in there):
        kinds = sorted({type(value).__name__ for value in there})
        msg = f"column {name!r} holds {' and '.join(kinds)}: make it numbers or texts."
        raise DataError(msg)
    values = sorted({value.strip() for value in there})
    if len(values) > _MOST_VALUES:
        msg = (
            f"column {name!r} holds {len(values)} different texts, which is no category: leave it "
            "out with features=, or make it numbers."
        )
        raise DataError(msg)
    return {"name": name, "values": values}


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else as_text(value)
