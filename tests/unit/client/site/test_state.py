"""What a site keeps from round to round."""

from pathlib import Path

import pytest
import torch

from wardround.client.site.state import SiteState
from wardround.common.errors import ModelError

RUN = "0" * 32


def kept(state: SiteState, number: int) -> float | None:
    memory = state.after(number)
    return float(memory["a"]) if memory else None


def fill(folder: Path, rounds: int, best: int = -1) -> SiteState:
    state = SiteState(folder, "digest", RUN)
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


def test_what_the_server_did_not_count_is_let_go(tmp_path: Path) -> None:
    state = fill(tmp_path, 5)
    state.settle(-1)
    assert kept(state, 9) == 5, "the server did not say"
    state.settle(4)
    assert [kept(state, number) for number in (4, 5, 9)] == [4, 4, 4]
    state.settle(0)
    assert kept(state, 9) is None


def test_a_round_that_was_counted_stays_while_later_ones_are_refused(tmp_path: Path) -> None:
    state = fill(tmp_path, 2)
    for number in range(3, 12):
        state.settle(2)
        state.keep(number, {"a": torch.tensor(float(number))}, best_round=0)
    state.settle(2)
    assert kept(state, 11) == 2


def test_a_counted_memory_that_is_not_there_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "wardround"):
        fill(tmp_path, 2).settle(7)
    assert "round=7 was counted, and its memory is not there" in caplog.text


def test_two_studies_do_not_see_each_other(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    assert SiteState(tmp_path, "other", RUN).after(9) == {}


def test_two_runs_of_one_study_do_not_see_each_other(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    other = SiteState(tmp_path, "digest", "1" * 32)
    assert other.after(9) == {}
    other.keep(1, {"a": torch.tensor(7.0)}, -1)
    assert kept(SiteState(tmp_path, "digest", RUN), 9) == 2
    assert kept(other, 9) == 7


def test_the_last_two_runs_of_a_study_are_kept(tmp_path: Path) -> None:
    runs = [f"{number:032x}" for number in range(4)]
    for number, run in enumerate(runs):
        SiteState(tmp_path, "digest", run).keep(1, {"a": torch.tensor(float(number))}, -1)
    states = [SiteState(tmp_path, "digest", run) for run in runs]
    assert [kept(state, 1) for state in states] == [None, None, 2, 3]
    states[2].keep(2, {"a": torch.tensor(22.0)}, -1)
    assert [kept(state, 2) for state in states] == [None, None, 22, 3]


def test_a_site_that_is_in_few_rounds_keeps_the_last_of_its_own(tmp_path: Path) -> None:
    state = SiteState(tmp_path, "digest", RUN)
    for number in (2, 5, 9, 14):
        state.keep(number, {"a": torch.tensor(float(number))}, best_round=4)
    assert [kept(state, number) for number in (1, 4, 8, 13, 20)] == [None, 2, 5, 9, 14]


def test_a_damaged_memory_is_refused(tmp_path: Path) -> None:
    state = fill(tmp_path, 1)
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"no")
    with pytest.raises(ModelError):
        state.after(1)
