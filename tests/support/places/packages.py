"""Installed packages for tests: written as pip leaves them, or built and installed by pip."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.stage import ENVIRONMENT

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "example-ward"

NETWORK = """
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, out_channels, spatial_dims, width=4):
        super().__init__()
        kind = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.body = nn.Sequential(kind(in_channels, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, out_channels)

    def forward(self, images):
        return self.head(self.body(images).flatten(2).mean(2))
"""
LEAVES_A_MARK = "from pathlib import Path\nPath({place!r}).touch()\n"


def write_package(
    root: Path,
    name: str = "tiny-ward",
    files: Mapping[str, str] | None = None,
    entry_points: str = "[wardround.networks]\nnet = tiny_ward.net:Net\n",
    metadata: str = "",
) -> Path:
    """Write a package as an installer does, RECORD included; return its metadata folder."""
    contents = {"tiny_ward/__init__.py": "", "tiny_ward/net.py": NETWORK, **(files or {})}
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}"
    contents[f"{info}/entry_points.txt"] = entry_points
    rows = []
    for path, text in contents.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        rows.append(f"{path},sha256={hashlib.sha256(text.encode()).hexdigest()},{len(text)}")
    (root / info / "RECORD").write_text("\n".join([*rows, f"{info}/RECORD,,", ""]))
    return root / info


def install_example(folder: Path) -> Path:
    """Build the example package and install it into a folder, without a network; return that."""
    source, target = folder / "example-ward", folder / "installed"
    shutil.copytree(EXAMPLE, source)
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, *words, "--target", str(target), str(source)],
        check=True,
        timeout=300,
        env=ENVIRONMENT,
    )
    return target


def with_package(target: Path) -> dict[str, str]:
    """Return the environment of a process that has what is installed in a folder."""
    parts = (str(target), ENVIRONMENT.get("PYTHONPATH", ""))
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, parts))}
