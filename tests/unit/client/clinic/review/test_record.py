"""The table of corrections: appended to by several, killed in the middle, changed by nobody."""

import json
import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from wardround.client.clinic.review.record import (
    Opinion,
    case_key,
    check_reader,
    keep_mask,
    write_corrections,
)
from wardround.client.data.manifest.corrections import Correction, read_corrections
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import DataError, InputError

FACTS = Correction(
    time="", reader="", case="", column="", old="", new="", classes=("a", "b"), queue="first"
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    return open_site(tmp_path)


def _say(site: Site, case: str, new: str, reader: str = "AB") -> list[Correction]:
    return write_corrections(site, reader, [Opinion(case, "label", new, "a")], FACTS)


def test_each_line_says_what_counted_before_it(site: Site) -> None:
    assert [one.old for one in _say(site, "1", "b")] == ["a"]
    assert [one.old for one in _say(site, "1", "a", "CD")] == ["b"]
    table = read_corrections(site.corrections_path)
    assert [(one.reader, one.old, one.new) for one in table.lines] == [
        ("AB", "a", "b"),
        ("CD", "b", "a"),
    ]
    assert table.last("label")["1"].new == "a"
    assert table.head.entries == 2


def test_nobody_else_may_read_the_table_the_key_or_a_mask(site: Site) -> None:
    case_key(site)
    _say(site, "1", "b")
    name = keep_mask(site, b"mask", ".png")
    for path in (
        site.corrections_path,
        site.corrections_path.with_name("key"),
        site.corrections_path.with_name("masks") / name,
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_somebody_changed_is_found(site: Site, place: int) -> None:
    _say(site, "1", "b")
    _say(site, "2", "b")
    lines = site.corrections_path.read_text().splitlines()
    lines[place] = lines[place].replace('"new":"b"', '"new":"c"')
    site.corrections_path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"line {place + 1} of .* was changed"):
        read_corrections(site.corrections_path)
    with pytest.raises(DataError, match="was changed"):
        _say(site, "3", "b")


def test_a_torn_line_never_counted_and_the_next_one_takes_its_place(site: Site) -> None:
    _say(site, "1", "b")
    whole = site.corrections_path.read_bytes()
    for cut in (1, 20, len(whole) - 1):
        site.corrections_path.write_bytes(whole + whole[:cut])
        assert len(read_corrections(site.corrections_path).lines) == 1
        _say(site, "2", "b")
        assert [one.case for one in read_corrections(site.corrections_path).lines] == ["1", "2"]


def _write_many(folder: Path, reader: str, count: int) -> None:
    opened = open_site(folder)
    for number in range(count):
        _say(opened, str(number), "b" if number % 2 else "a", reader)


def test_two_processes_at_a_time_lose_nothing(site: Site) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(site.folder, r, 15)) for r in ("AB", "CD")]
    for one in writers:
        one.start()
    for one in writers:
        one.join(60)
        assert one.exitcode == 0
    lines = read_corrections(site.corrections_path).lines
    assert len(lines) == 30
    said: dict[str, str] = {}
    for one in lines:
        assert one.old == said.get(one.case, "a")
        said[one.case] = one.new


def test_a_kill_in_the_middle_leaves_a_table_that_goes_on(site: Site) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_write_many, args=(site.folder, "AB", 100_000))
    child.start()
    until = time.monotonic() + 30
    while not site.corrections_path.exists() or site.corrections_path.stat().st_size < 2_000:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    before = len(read_corrections(site.corrections_path).lines)
    assert before > 0
    _say(site, "after", "b", "CD")
    after = read_corrections(site.corrections_path).lines
    assert len(after) == before + 1
    assert after[-1].reader == "CD"


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\x1b[2Jb"])
def test_a_name_that_is_none_is_refused(name: str, site: Site) -> None:
    with pytest.raises(InputError, match="reader's name"):
        check_reader(name)
    with pytest.raises(InputError, match="reader's name"):
        _say(site, "1", "b", name)
    assert not site.corrections_path.exists()


def test_a_key_that_is_gone_is_not_made_anew(site: Site) -> None:
    key = case_key(site)
    assert case_key(site) == key
    _say(site, "1", "b")
    site.corrections_path.with_name("key").unlink()
    with pytest.raises(DataError, match="is gone"):
        case_key(site)


def test_lines_are_bound_to_the_ones_before(site: Site) -> None:
    for case in "123":
        _say(site, case, "b")
    lines = [json.loads(line) for line in site.corrections_path.read_text().splitlines()]
    assert [one["number"] for one in lines] == [1, 2, 3]
    assert lines[1]["previous"] == lines[0]["hash"]
    text = site.corrections_path.read_text().splitlines()
    site.corrections_path.write_text("\n".join([text[0], text[2]]) + "\n")
    with pytest.raises(DataError, match="does not follow"):
        read_corrections(site.corrections_path)
