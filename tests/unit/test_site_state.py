"""What a site keeps from round to round."""

from pathlib import Path

import pytest
import torch

from wardround.client.site_state import SiteState
from wardround.common.errors import ModelError


def kept(state: SiteState, number: int) -> float | None:
    memory = state.after(number)
    return float(memory["a"]) if memory else None


def fill(folder: Path, rounds: int, best: int = -1) -> SiteState:
    state = SiteState(folder, "digest")
    for number in range(1, rounds + 1):
        state.keep(number, {"a": torch.tensor(float(number))}, best)
    return state


def test_a_round_finds_what_the_last_one_before_it_left(tmp_path: Path) -> None:
    state = fill(tmp_path, 3)
    assert [kept(state, number) for number in (0, 1, 2, 3, 9)] == [None, 1, 2, 3, 3]


def test_the_last_rounds_and_the_best_are_kept(tmp_path: Path) -> None:
    state = fill(tmp_path, 9, best=2)
    assert [kept(state, number) for number in (1, 2, 6, 7, 8, 9)] == [None, 2, 2, 7, 8, 9]


def test_a_run_that_goes_back_forgets_what_came_after(tmp_path: Path) -> None:
    state = fill(tmp_path, 5)
    state.keep(4, {"a": torch.tensor(40.0)}, -1)
    assert kept(state, 9) == 40


def test_two_studies_do_not_see_each_other(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    assert SiteState(tmp_path, "other").after(9) == {}


def test_a_damaged_memory_is_refused(tmp_path: Path) -> None:
    state = fill(tmp_path, 1)
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"no")
    with pytest.raises(ModelError):
        state.after(1)
