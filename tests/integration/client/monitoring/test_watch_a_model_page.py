"""Each command of ``docs/how-to/watch-a-model.md``, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tests.support.stage import ENVIRONMENT
from tests.support.studies.tiny_study import TINY_STUDY

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "watch-a-model.md"
_PATIENCE_SECONDS = 300.0


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
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    commands = [line for language, block in blocks if not language for line in block.splitlines()]
    assert len(commands) > 7
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = {}
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**ENVIRONMENT, "PATH": path, "WARDROUND_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        fine = (0, 1) if "monitor close" in command else (0,)  # 1: an alarm is open
        assert done.returncode in fine, f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
    assert "12 labels; 0 rows" in "".join(said.values())
    assert "Wardround monitoring" in (tmp_path / "monitoring.html").read_text()
