"""A log takes a few lines of a kind a minute, and says how many more there were."""

import logging
from dataclasses import dataclass

import pytest

from wardround.server.link.log_limit import LogLimit


@dataclass
class Log:
    """A log with a limit and a clock that stands still."""

    lines: list[str]
    now: float = 0.0

    def __post_init__(self) -> None:
        self.limit = LogLimit(lambda: self.now)

    def write(self, template: str, *values: object, logger: str = "a") -> None:
        record = logging.LogRecord(logger, logging.WARNING, "", 0, template, values, None)
        if self.limit.filter(record):
            self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Log:
    return Log([])


def test_five_lines_of_a_kind_pass_whatever_their_values(log: Log) -> None:
    for number in range(100):
        log.write("from %s", number)
        log.write("100 % of it")
    log.write("from %s", 7, logger="another")
    assert [line for line in log.lines if "from" in line] == [
        *(f"from {number}" for number in range(5)),
        "from 7",
    ]
    assert len(log.lines) == 11


def test_a_later_line_says_how_many_there_were(log: Log) -> None:
    for _ in range(9):
        log.write("again")
    log.now = 60.0
    log.write("again")
    log.write("again")
    assert log.lines[-2:] == ["again (and 4 like this one before)", "again"]


def test_where_no_such_line_comes_the_report_says_it_once(log: Log) -> None:
    for _ in range(9):
        log.write("again")
    assert log.limit.report() == []
    log.now = 61.0
    assert log.limit.report() == ["4 more of a: 'again'"]
    assert log.limit.report() == []


def test_addresses_of_objects_below_the_first_line_make_no_new_kind(log: Log) -> None:
    for number in range(100):  # as asyncio writes them
        log.write(f"socket.accept() out of system resource\nsocket: <0x{number:x}>")
    assert len(log.lines) == 5


def test_kinds_without_end_are_one_kind_in_the_end(log: Log) -> None:
    for number in range(1000):
        log.write(f"kind {number}")
    assert len(log.lines) == 64 + 5


def test_a_line_is_cut_where_it_has_no_end(log: Log) -> None:
    log.write("%s", "x" * 10**6)
    assert len(log.lines[0]) == 4000
