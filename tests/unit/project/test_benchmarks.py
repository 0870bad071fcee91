"""What a benchmark starts by name is there: a name in a string does not move with its file."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_SCRIPTS = re.compile(r"_script\(job, \"([a-z_]+)\"\)")
_MODULES = re.compile(r"\"(benchmarks\.[a-z_.]+)\"")


def _named() -> list[str]:
    named = set()
    for file in (ROOT / "benchmarks").rglob("*.py"):
        text = file.read_text("utf-8")
        named |= {f"benchmarks.peers.{name}" for name in _SCRIPTS.findall(text)}
        named |= set(_MODULES.findall(text))
    return sorted(named)


@pytest.mark.parametrize("module", _named())
def test_a_module_that_a_benchmark_starts_is_there(module: str) -> None:
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("name", ["two_process_loop", "flower_simulation"])
def test_the_engines_are_held_against_what_the_pages_say(name: str) -> None:
    assert f"benchmarks.peers.{name}" in _named()


def test_one_pair_has_no_interval_and_two_have_one_in_json_that_others_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT)  # Opacus installs a package of this name, too
    from benchmarks.load.pictures import paired_ratio

    said = json.dumps([paired_ratio([(1.0, 2.0)]), paired_ratio([(1.0, 2.0), (1.0, 2.1)])])
    one, two = json.loads(said, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (one["ratio"], one["low"], one["high"]) == (2.0, None, None)
    assert two["low"] < two["ratio"] < two["high"]
