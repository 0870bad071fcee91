"""Each command of ``docs/how-to/watch-a-model.md``, run as it stands there."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tests.support.page_commands import run_commands
from tests.support.studies.tiny_study import TINY_STUDY

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "watch-a-model.md"


def write_data(folder: Path) -> None:
    drawn = np.random.default_rng(0)
    for name, count in (("scans", 24), ("week", 12)):
        rows, labels = ["patient,image,label,site"], ["image,label"]
        (folder / name).mkdir()
        for number in range(count):
            values = (drawn.random((24, 24)) * 120 + 60 * (number % 2)).astype(np.uint8)
            PIL.Image.fromarray(values).save(folder / name / f"{number:03d}.png")
            kind, site = ("normal", "abnormal")[number % 2], ("north", "south")[number // 2 % 2]
            rows.append(f"p{number},{name}/{number:03d}.png,{kind},{site}")
            labels.append(f"{name}/{number:03d}.png,{kind}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    (folder / "read.csv").write_text("\n".join(labels) + "\n")
    (folder / "study.toml").write_text(TINY_STUDY.format(manifest=folder / "scans.csv"))


def test_the_commands_run_in_the_order_of_the_page(tmp_path: Path) -> None:
    write_data(tmp_path)
    said = run_commands(PAGE, tmp_path, {"monitor close": (1,)})  # 1: an alarm is open
    assert len(said) > 7
    assert "12 labels; 0 rows" in "".join(said.values())
    assert "Wardround monitoring" in (tmp_path / "monitoring.html").read_text()
