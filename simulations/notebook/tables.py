"""Rows as a table: a data frame where pandas is installed, else a list of dictionaries."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A pandas.DataFrame, or list[dict[str, str | int | float]]: what both can do is iterate.
Table: TypeAlias = Any


def as_table(rows: "Sequence[DataclassInstance]", kind: "type[DataclassInstance]") -> Table:
    """Return rows as a table, a column a field; without rows the columns are there all the same."""
    return table_of([asdict(row) for row in rows], [field.name for field in fields(kind)])


def table_of(rows: list[dict[str, Any]], columns: Sequence[str]) -> Table:
    """Return dictionaries as a table.

    Args:
        columns: Their keys, in order.
    """
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame(rows, columns=list(columns))
