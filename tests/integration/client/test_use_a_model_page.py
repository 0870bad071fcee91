"""Each command of ``docs/how-to/use-a-model.md``, run as it stands there."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tests.support.page_commands import run_commands
from tests.support.studies.tiny_study import TINY_STUDY

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "use-a-model.md"


def write_data(folder: Path) -> None:
    drawn, rows = np.random.default_rng(0), ["patient,image,label,site"]
    (folder / "scans").mkdir()
    for number in range(20):
        values = (drawn.random((24, 24)) * 120 + 60 * (number % 2)).astype(np.uint8)
        PIL.Image.fromarray(values).save(folder / "scans" / f"f{number:03d}.png")
        kind, site = ("normal", "abnormal")[number % 2], ("north", "south")[number // 10]
        rows.append(f"p{number},scans/f{number:03d}.png,{kind},{site}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "study.toml").write_text(TINY_STUDY.format(manifest=folder / "manifest.csv"))


def test_the_commands_run_in_the_order_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_data(tmp_path)
    said = run_commands(PAGE, tmp_path)
    assert len(said) > 10
    assert (tmp_path / "predicted" / "predictions.csv").read_text().count("\n") == 21
    assert "Largest difference from torch on the image" in "".join(said.values())
    assert any(re.search(r'weights_sha256 = "[0-9a-f]{64}"', text) for text in said.values())
