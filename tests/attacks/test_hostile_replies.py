"""10,000 hostile messages: no exception leaves, and no honest site's update is lost."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from tests.support.hostile.messages import Mutation, attacks, good_messages, refusals_of
from tests.support.hostile.rounds import attack_rounds

pytestmark = pytest.mark.attacks
# Each attack is made on each of seven kinds of messages: 10,003.
ATTACKS, ROUNDS, ASYNCHRONOUS_ROUNDS = 1_429, 1_000, 300


def patient(examples: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@patient(ATTACKS)
@given(attack=attacks)
def test_a_hostile_message_is_read_or_refused_in_words(attack: Sequence[Mutation]) -> None:
    for content in good_messages():
        for change in attack:
            change(content)
        refusals_of(content)


@patient(ROUNDS)
@given(attack=attacks)
def test_a_hostile_site_costs_a_round_no_honest_update(attack: Sequence[Mutation]) -> None:
    with TemporaryDirectory() as folder:
        attack_rounds(Path(folder), attack)


@patient(ASYNCHRONOUS_ROUNDS)
@given(attack=attacks)
def test_a_hostile_site_ends_no_asynchronous_run(attack: Sequence[Mutation]) -> None:
    with TemporaryDirectory() as folder:
        attack_rounds(Path(folder), attack, buffer_size=2)
