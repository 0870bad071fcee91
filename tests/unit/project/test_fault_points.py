"""The functions that fault runs stop in are there under the names by which they are called."""

import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_NAMED = re.compile(r"\"((?:client|server|common|simulations)\.[a-z_.]+):([A-Za-z_.]+)\"")


def _planted() -> dict[str, tuple[str, ...]]:
    held: dict[str, tuple[str, ...]] = runpy.run_path(
        str(ROOT / "tests" / "faults" / "planted" / "sitecustomize.py")
    )["POINTS"]
    return held


def _named() -> list[tuple[str, str]]:
    files = [*(ROOT / "tests" / "faults").rglob("*.py"), *(ROOT / "tests" / "e2e").rglob("*.py")]
    return sorted({pair for file in files for pair in _NAMED.findall(file.read_text("utf-8"))})


@pytest.mark.parametrize(("module", "name"), _named())
def test_a_point_at_which_a_test_stops_a_process_is_planted(module: str, name: str) -> None:
    assert name in _planted()[f"wardround.{module}"]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in _planted().items() for name in names]
)
def test_a_planted_point_names_a_function(module: str, name: str) -> None:
    found: object = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
