from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.clinic.monitoring.periods import (
    EVERY,
    Every,
    every_named,
    first_day,
    next_period,
    period_of,
)
from wardround.common.errors import InputError


@given(st.dates(date(2000, 1, 1), date(2999, 1, 1)), st.sampled_from(EVERY))
def test_periods_follow_each_other_and_sort_by_time(day: date, every: Every) -> None:
    period = period_of(day, every)
    first = first_day(period, every)
    assert period_of(first, every) == period
    after = next_period(period, every)
    assert after > period
    assert period_of(first_day(after, every) - timedelta(days=1), every) == period


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("2026-W54", "week"),
        ("２０２６-W48", "week"),  # it would sort behind every other
        ("2026-13", "month"),
        ("49", "week"),
        ("", "day"),
    ],
)
def test_a_text_that_names_no_period_is_refused_with_an_example(text: str, every: Every) -> None:
    with pytest.raises(InputError, match=f"is no {every}: write it as 2026-"):
        first_day(text, every)


def test_an_unknown_length_lists_the_known() -> None:
    with pytest.raises(InputError, match="Known: day, month, week"):
        every_named("fortnight")
