"""What came of a queue: only what something could be held against is called right or wrong."""

from pathlib import Path
from typing import Any

import pytest

from wardround.client.clinic.review.queue import Entry, Queue, read_queue, save_queue
from wardround.client.clinic.review.report import make_report
from wardround.client.data.manifest.corrections import Correction
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError, InputError


def queue_of(*entries: Entry, name: str = "first") -> Queue:
    return Queue(name, "entropy", 2, "2026-11-29", {}, ("ab" * 32,), entries)


def said_of(case: str, label: str) -> Correction:
    known: dict[str, Any] = {
        "column": "label",
        "old": "",
        "new": label,
        "classes": ("normal", "abnormal"),
    }
    return Correction(time="2026-11-29T00:00:00+00:00", reader="AB", case=case, **known)


def test_a_case_of_which_nothing_was_said_before_is_neither_right_nor_wrong() -> None:
    blank = Entry("a", "unlabelled.csv row 2", ("random",), None, "", "")
    changed = Entry("b", "row 2", ("random",), None, "normal")
    held = Entry("c", "row 3", ("chosen",), 0.5, "", "abnormal")
    read = [said_of(case, "abnormal") for case in "abc"]
    report = make_report(queue_of(blank, changed, held), read, ())
    assert (report.arms["random"].read, report.arms["random"].checked) == (2, 1)
    assert report.arms["random"].wrong == 1
    assert report.arms["chosen"].wrong == 0
    assert report.found.difference.value == pytest.approx(-1.0)
    assert "1 case read had neither a label nor a prediction" in "\n".join(report.lines())


def test_where_choosing_cannot_be_compared_the_verdict_is_none_and_not_no_gain() -> None:
    blank = Entry("a", "unlabelled.csv row 2", ("random",), None, "", "")
    report = make_report(queue_of(blank), [said_of("a", "abnormal")], ())
    assert report.content()["verdict"] is None
    assert report.content()["unchecked"] == 1
    assert "cannot be said" in "\n".join(report.lines())


def test_of_several_queues_one_has_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    site = open_site(tmp_path)
    save_queue(site, queue_of())
    assert read_queue(site, "").name == "first"
    save_queue(site, queue_of(name="second"))
    with pytest.raises(InputError, match=r"2 queues: give --queue NAME, one of first, second"):
        read_queue(site, "")


@pytest.mark.parametrize("content", ["[]", "1", "[" * 200_000, '{"entries": 3}', "\0"])
def test_a_damaged_queue_is_said_with_its_place(tmp_path: Path, content: str) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    site = open_site(tmp_path)
    save_queue(site, queue_of()).with_suffix(".json").write_text(content)
    with pytest.raises(DataError, match=r"first\.json cannot be read: put it back"):
        read_queue(site, "first")
