"""What came of the work on the stand-in, which is done once, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[4]
Results = dict[str, dict[str, Any]]


def work_apart(module: str, folder: Path) -> Results:
    """Run a module of this room, which is given a folder to work in; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.unit.client.devices.{module}", str(folder / "work")],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        env={**os.environ, "WARDROUND_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: Results = json.loads(done.stdout.splitlines()[-1])
    return found


def of(results: Results, name: str) -> dict[str, Any]:
    """Return what came of one piece of the work."""
    assert "failed" not in results[name], results[name]["failed"]
    return results[name]
