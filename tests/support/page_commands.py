"""The commands of a page, run one after the other as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.stage import ENVIRONMENT

_PATIENCE_SECONDS = 300.0
_NOTHING: Mapping[str, Sequence[int]] = {}


def blocks_of(page: Path, language: str = "") -> list[str]:
    """Return a page's blocks of a language; those that name none are commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for one, block in found if one == language]


def run_commands(
    page: Path, folder: Path, fine: Mapping[str, Sequence[int]] = _NOTHING
) -> dict[str, str]:
    """Run a page's commands in a folder; return what each has printed.

    Args:
        fine: Exit codes that are expected of commands with such words, beside 0.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = {}
    for command in (line for block in blocks_of(page) for line in block.splitlines() if line):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**ENVIRONMENT, "PATH": path, "WARDROUND_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        codes = [code for words, more in fine.items() if words in command for code in more]
        assert done.returncode in (0, *codes), f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
    return said
