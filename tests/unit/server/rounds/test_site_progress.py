"""What a site is told of itself in each order: its last counted update, its ledger's count."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from tests.support.scripted_sites import (
    Reply,
    ScriptedSite,
    error_reply,
    federate,
    study_with,
    wrong_shape,
)

from wardround.common.errors import RunError
from wardround.common.flower.messages.content import configs_of
from wardround.common.messages.instructions import unpack_instruction


class HearingSite(ScriptedSite):
    """A site that remembers how it stood in each order, and counts up its ledger."""

    def __init__(
        self, *args: Any, ledger: Iterable[int] = (), heads: Iterable[str] = (), **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._heads = itertools.chain(heads, itertools.repeat(""))
        self._ledger = itertools.chain(ledger, itertools.repeat(0))
        self.heard: list[tuple[str, int, int, int]] = []
        self.runs: set[str] = set()

    def reply(self, message: Message) -> Reply:
        kind = message.metadata.message_type
        if not kind.startswith("query"):
            instruction = unpack_instruction(message.content)
            self.heard.append(
                (kind, instruction.round, instruction.counted_round, instruction.ledger.entries)
            )
            self.runs.add(instruction.run)
        reply = super().reply(message)
        ledger = next(self._ledger) if kind == "train" else 0
        if ledger and isinstance(reply, RecordDict) and "header" in reply:
            header = configs_of(reply)["header"]
            header["ledger"], header["ledger-head"] = ledger, next(self._heads)
        return reply


def test_a_site_hears_which_of_its_updates_was_counted_last(tmp_path: Path) -> None:
    study = study_with(rounds=4, minimum_sites=1)
    refused = lambda instruction, update: (  # noqa: E731 # as short as a script can be
        wrong_shape(instruction, update) if instruction.round in (2, 4) else update
    )
    fine, other = HearingSite("a", study), HearingSite("b", study, disturb=refused)
    federate(study, tmp_path, fine, other)
    assert [counted for _, _, counted, _ in fine.heard] == [0, 1, 2, 3, 4]
    assert [(kind, counted) for kind, _, counted, _ in other.heard] == [
        ("train", 0),
        ("train", 1),
        ("train", 1),
        ("train", 3),
        ("evaluate", 3),
    ]


def test_a_site_hears_the_highest_count_of_its_ledger_even_of_a_refused_update(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=4, minimum_sites=1)
    refused = lambda instruction, update: (  # noqa: E731 # as short as a script can be
        wrong_shape(instruction, update) if instruction.round == 2 else update
    )
    site = HearingSite("b", study, disturb=refused, ledger=(3, 5, 2, 4))
    other = HearingSite("a", study)
    federate(study, tmp_path, other, site)
    assert [ledger for _, _, _, ledger in site.heard] == [0, 3, 5, 5, 5]
    assert {ledger for _, _, _, ledger in other.heard} == {0}


def test_an_update_of_a_ledger_that_was_written_anew_is_not_counted(tmp_path: Path) -> None:
    study = study_with(rounds=3, minimum_sites=1)
    site = HearingSite("b", study, ledger=(3, 5, 5), heads=("x", "y", "z"))
    _, _, records = federate(study, tmp_path, ScriptedSite("a", study), site)
    counted = [[one.site for one in record.sites] for record in records[:3]]
    assert counted == [["a", "b"], ["a", "b"], ["a"]]
    (refusal,) = records[2].refusals
    assert refusal.site == "b"
    assert refusal.reason.startswith(
        "entry 5 of its privacy ledger is not the one that this server"
    )


def test_a_resumed_run_keeps_its_name_and_what_was_counted_and_a_new_run_has_another(
    tmp_path: Path,
) -> None:
    study = study_with(rounds=3, minimum_sites=2)
    fails = lambda instruction, update: (  # noqa: E731 # as short as a script can be
        error_reply(instruction, update) if instruction.round == 3 else update
    )
    first = HearingSite("b", study, disturb=fails, ledger=(1, 2))
    with pytest.raises(RunError):
        federate(study, tmp_path / "one", ScriptedSite("a", study), first)
    again = HearingSite("b", study)
    federate(study, tmp_path / "one", ScriptedSite("a", study), again)
    assert again.heard[0] == ("train", 3, 2, 2)
    assert again.runs == first.runs
    assert len(first.runs) == 1
    new = HearingSite("b", study)
    federate(study, tmp_path / "two", ScriptedSite("a", study), new)
    assert new.heard[0] == ("train", 1, 0, 0)
    assert not new.runs & first.runs
