"""A data set of an installed package may yield its rows one by one."""

from pathlib import Path

import pytest
from tests.support.places.packages import write_package

from wardround.common.files.packages.importing import forget_packages
from wardround.simulations.datasets.manifest_file import _written, registered_entry

CODE = """
def rows(folder):
    for number in range(3):
        yield {"patient": f"p{number}", "label": "a"}
"""


def test_rows_that_are_yielded_are_all_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "[wardround.datasets]\nrows = tiny_ward.rows:rows\n"
    write_package(tmp_path / "installed", files={"tiny_ward/rows.py": CODE}, entry_points=points)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    try:
        registered_entry("tiny-ward:rows")
        from tiny_ward.rows import rows

        manifest = _written("tiny-ward:rows", rows, tmp_path / "made", {})
    finally:
        forget_packages()
    assert manifest.read_text().split() == ["patient,label", "p0,a", "p1,a", "p2,a"]
