"""A ledger's lines are those that they always were: the sites' own ledgers stay valid."""

from datetime import datetime, tzinfo
from typing import Self

import pytest

from wardround.client.privacy.ledger import entries
from wardround.client.privacy.ledger.entries import Opened, Reserved, entry_after
from wardround.client.privacy.ledger.file import read_chain

# As the first version wrote them, at noon.
FIRST_LINE = (
    '{"fact":{"format":2,"ledger":"0f0f0f0f","wardround":"0.1.0"},"hash":"44304f75c02debbd3ed'
    '75b6c2b57710fa56edea5305484ceba9431b309952ad5","kind":"opened","number":0,"previous":"00'
    '00000000000000000000000000000000000000000000000000000000000000","time":"2026-11-28T12:00'
    ':00Z"}'
)
SECOND_LINE = (
    '{"fact":{"attempt":0,"dataset":"main \\u00e4","noise_multiplier":1.25,"part":"train","rou'
    'nd":1,"run":"r","sampling_rate":0.1,"snapshot":"n","steps":10,"study":"s"},"hash":"9215d'
    '0aee9821dca68d3f9f65596e35c73935d8e56c06525f4804ab847b53ff9","kind":"reserved","number":'
    '1,"previous":"44304f75c02debbd3ed75b6c2b57710fa56edea5305484ceba9431b309952ad5","time":"'
    '2026-11-28T12:00:00Z"}'
)
OPENED = Opened("0f0f0f0f", "0.1.0", 2)
RESERVED = Reserved("s", "r", "main ä", "train", "n", 1, 0, 0.1, 1.25, 10)


class Noon(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 11, 28, 12, 0, 0, tzinfo=tz)


def test_a_ledger_that_an_earlier_version_wrote_is_read() -> None:
    chain = read_chain(f"{FIRST_LINE}\n{SECOND_LINE}\n".encode())
    assert [entry.fact for entry in chain.entries] == [OPENED, RESERVED]
    assert [entry.line().decode() for entry in chain.entries] == [FIRST_LINE, SECOND_LINE]


def test_a_ledger_is_written_byte_for_byte_as_it_always_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entries, "datetime", Noon)
    first = entry_after(None, OPENED)
    second = entry_after(first, RESERVED)
    assert [entry.line().decode() for entry in (first, second)] == [FIRST_LINE, SECOND_LINE]
