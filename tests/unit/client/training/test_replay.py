"""Which rows are in a batch that replays old ones."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.training.replay import draw_replayed
from wardround.client.training.schedule import steps_a_round
from wardround.common.study.sections.continual import ContinualSection
from wardround.common.study.sections.training import TrainingSection


def drawn(
    waves: list[int], replay: float | None, batch: int, seed: int = 0, **training: int
) -> list[list[int]]:
    held = ContinualSection(wave=max([2, *waves]), replay=replay)
    chosen = TrainingSection(batch_size=batch, **training)  # type: ignore[arg-type] # whole numbers
    generator = torch.Generator().manual_seed(seed)
    return [one.tolist() for one in draw_replayed(torch.tensor(waves), held, chosen, generator)]


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(1, 9),
)
def test_batches_have_their_share_of_old_rows_and_steps_tell_nothing_of_it(
    waves: list[int], replay: float, batch: int
) -> None:
    batches = drawn(waves, replay, batch)
    training = TrainingSection(batch_size=batch)
    assert len(batches) == steps_a_round(len(waves), training)
    newest = max([2, *waves])
    kinds = {wave == newest for wave in waves}
    if len(kinds) == 1:
        assert sorted(i for one in batches for i in one) == list(range(len(waves)))
        return
    size = min(batch, len(waves))
    assert {len(one) for one in batches} == {size}
    old = [sum(waves[i] < newest for i in one) for one in batches]
    assert max(old) - min(old) <= 1
    assert sum(old) == int(size * replay * len(batches))


def test_old_rows_come_in_turn_before_any_comes_again() -> None:
    waves = [1] * 6 + [2] * 20
    batches = drawn(waves, 0.5, 4, local_steps=3)
    old = [i for one in batches for i in one if waves[i] == 1]
    assert sorted(old) == list(range(6))


def test_each_wave_has_the_same_share_where_a_study_does_not_say() -> None:
    waves = [1] * 10 + [2] * 10
    assert all(sum(waves[i] == 1 for i in one) == 4 for one in drawn(waves, None, 8))
    third = [*waves, *[3] * 10]
    assert all(sum(third[i] < 3 for i in one) == 6 for one in drawn(third, None, 9))


def test_the_same_seed_draws_the_same_batches() -> None:
    waves = [1, 2] * 12
    assert drawn(waves, 0.25, 4, seed=3) == drawn(waves, 0.25, 4, seed=3)
    assert drawn(waves, 0.25, 4, seed=3) != drawn(waves, 0.25, 4, seed=4)
