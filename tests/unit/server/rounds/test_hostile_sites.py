"""One site that sends what it likes is refused by name; the others' round goes on."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from tests.support.hostile.messages import (
    Mutation,
    attacks,
    drop_record,
    filled,
    set_field,
    set_record,
    spoil_array,
)
from tests.support.hostile.rounds import attack_rounds

ATTACKS: dict[str, Mutation] = {
    "infinite examinations": set_field("facts", "examinations", float("inf")),
    "negative examinations": set_field("facts", "examinations", -50),
    "no examination": set_field("facts", "examinations", 0),
    "endless examinations": set_field("facts", "examinations", 10**400),
    "negative seconds": set_field("facts", "seconds", -1.0),
    "infinite loss": set_field("facts", "training-loss", float("inf")),
    "a list for a number": set_field("facts", "updates", [1, 2]),
    "no facts": drop_record("facts"),
    "no model": drop_record("model"),
    "infinite values": spoil_array("model", 0, filled(float("inf"))),
    "values that overflow the mean": spoil_array("model", 0, filled(3e38)),
    "negative counts": spoil_array("metrics", 2, filled(-50.0)),
    "a loss that overflows the sum": spoil_array("metrics", 1, filled(1.7e308)),
    "a bare refusal": set_record("refusal", ConfigRecord()),
    "a refusal of numbers": set_record("refusal", ConfigRecord({"code": 7, "reason": 1.5})),
    "a refusal that paints": set_record(
        "refusal", ConfigRecord({"site": "x", "code": "data", "reason": "\x1b[2J" * 10_000})
    ),
}


@pytest.mark.parametrize("federation", [{}, {"buffer_size": 2}], ids=["rounds", "asynchronous"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_by_name_and_costs_no_honest_update(
    tmp_path: Path, attack: str, federation: dict[str, object]
) -> None:
    assert attack_rounds(tmp_path, [ATTACKS[attack]], **federation)


@pytest.mark.parametrize("strategy", ["fednova", "cyclic", "fedadam"])
@pytest.mark.parametrize("attack", ["infinite examinations", "no examination", "no facts"])
def test_no_strategy_takes_a_hostile_number_in(tmp_path: Path, attack: str, strategy: str) -> None:
    attack_rounds(tmp_path, [ATTACKS[attack]], strategy=strategy)


@settings(max_examples=60, deadline=None)
@given(attack=attacks)
def test_no_exception_leaves_a_round_whatever_a_site_sends(attack: Sequence[Mutation]) -> None:
    with TemporaryDirectory() as folder:
        attack_rounds(Path(folder), attack)


@settings(max_examples=30, deadline=None)
@given(attack=attacks)
def test_no_exception_leaves_an_asynchronous_round(attack: Sequence[Mutation]) -> None:
    with TemporaryDirectory() as folder:
        attack_rounds(Path(folder), attack, buffer_size=2)
