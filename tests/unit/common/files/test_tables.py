"""Rows are written as a CSV table and read back as what they were."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from wardround.common.files.tables import read_table, write_cells, write_table


@dataclass(frozen=True, slots=True)
class Line:
    site: str
    count: int
    value: float
    note: str = ""


ROWS = [Line("north", 3, 0.1 + 0.2, 'a "quoted", word'), Line("south", -1, float("inf"), "ü\nv")]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", iter(ROWS), Line)
    assert read_table(tmp_path / "t.csv", Line) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_table_without_rows_has_its_header_and_an_absent_one_no_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [], Line)
    assert (tmp_path / "t.csv").read_bytes() == b"site,count,value,note\r\n"
    assert read_table(tmp_path / "t.csv", Line) == []
    assert read_table(tmp_path / "other.csv", Line) == []


def test_what_is_no_such_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("site,count,value\nnorth,three,1.0\n")
    with pytest.raises(ValueError, match="three"):
        read_table(tmp_path / "t.csv", Line)
    (tmp_path / "t.csv").write_text("site,number\nnorth,3\n")
    with pytest.raises(KeyError):
        read_table(tmp_path / "t.csv", Line)


def test_a_row_that_cannot_be_made_leaves_the_old_table(tmp_path: Path) -> None:
    write_cells(tmp_path / "t.csv", ["a"], [[1]])

    def broken() -> object:
        yield [2]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_cells(tmp_path / "t.csv", ["a"], broken())  # type: ignore[arg-type]
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
