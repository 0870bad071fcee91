"""The combination of an installed package gives one finite change, or is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.places.packages import write_package

from wardround.common.errors import RunError
from wardround.common.files.packages.importing import component, forget_packages
from wardround.common.files.packages.snapshot import hash_of
from wardround.server.strategies.aggregation.registered import _checked

CODE = """
import torch


def mean(changes, weights):
    return changes.mean(0)


def turned(changes, weights):
    return torch.complex(changes.mean(0), changes.mean(0))


def all_of_them(changes, weights):
    return changes
"""
NAMES = ("mean", "turned", "all_of_them")


@pytest.fixture
def hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    points = "".join(f"{name} = tiny_ward.rule:{name}\n" for name in NAMES)
    write_package(
        tmp_path,
        files={"tiny_ward/rule.py": CODE},
        entry_points=f"[wardround.strategies]\n{points}",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield {"tiny-ward": hash_of("tiny-ward")}
    forget_packages()


def test_a_change_of_the_same_numbers_is_taken(hashes: dict[str, str]) -> None:
    rule = _checked("tiny-ward:mean", component("strategies", "tiny-ward:mean", hashes))  # type: ignore[arg-type]
    assert rule(torch.ones(3, 4), torch.ones(3)).tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["turned", "all_of_them"])
def test_anything_else_is_refused(hashes: dict[str, str], name: str) -> None:
    rule = _checked(name, component("strategies", f"tiny-ward:{name}", hashes))  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no finite change of 4 numbers"):
        rule(torch.ones(3, 4), torch.ones(3))
