"""The benchmark of a GPU can be run before there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it measures, for ten minutes")
def test_without_a_gpu_it_checks_itself_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--jobs", "small-cnn", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("no GPU: it checks only itself")
    tables = json.loads(out.read_text())
    losses, steps, private, volume = tables.values()
    assert losses[0]["met"] is True, "the CPU agrees with itself"
    assert [row["job"] for row in steps] == [
        "small-cnn 32x32 float32",
        "small-cnn 32x32 bfloat16",
    ]
    assert all(row["met"] is None for row in (*steps, *volume)), "no time here means anything"
    for variant in ("plain", "wardround", "opacus hooks", "opacus ghost"):
        assert isinstance(private[0][variant], float), private[0][variant]
