"""A year in a hospital as a script: its calendar, its report, and that it fails where it should.

Opacus installs a package that is called ``benchmarks`` too: the repository's own goes first here.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from benchmarks.year.diary import Diary

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def test_the_story_has_its_order_however_many_weeks_it_is_told_in() -> None:
    from benchmarks.year.calendar import LEAST_WEEKS, calendar_of

    for weeks in range(LEAST_WEEKS, 53):
        year = calendar_of(weeks)
        order = [1, year.scanner, year.readers, year.second, year.third, year.leaving, weeks]
        assert order == sorted(set(order)), weeks


def _diary(is_met: bool) -> "Diary":
    from benchmarks.year.diary import Diary, Week

    diary = Diary()
    for number in range(1, 9):
        diary.weeks.append(Week(number, "first", "DX", 40, 0.9 + number / 100, 0.9, "quiet"))
    diary.tell(2, "alarm", "<script>a scanner's name</script>")
    diary.expect("exactly one alarm in the year", is_met)
    diary.left.append(("first", "update", 6, 180_000))
    return diary


def test_the_report_says_first_what_was_not_as_it_had_to_be() -> None:
    from benchmarks.year.calendar import calendar_of
    from benchmarks.year.report import page_of

    page = page_of(_diary(is_met=False), calendar_of(8))
    assert "<h2>Not as it should be: exactly one alarm in the year</h2>" in page
    assert "The year went as it should" in page_of(_diary(is_met=True), calendar_of(8))
    assert "<script" not in page
    assert "6: 0.18 MB" in page


def test_a_week_of_which_nothing_is_known_is_null_in_the_data() -> None:
    from benchmarks.year.diary import Diary, Week

    diary = Diary(weeks=[Week(1, "first", "DX", 40, float("nan"), 0.9, "quiet")])
    assert diary.as_json()["weeks"][0]["auroc"] is None


def test_a_command_that_is_refused_ends_the_year_with_its_reason() -> None:
    from benchmarks.year.command import YearFailedError, command

    with pytest.raises(YearFailedError, match="is no run folder and no model folder"):
        command("study", "continue", "nowhere", "--out", "next.toml")


def test_an_archive_hands_each_image_out_once_and_says_when_it_is_empty(tmp_path: Path) -> None:
    from benchmarks.year.images import Archive, drawn_images

    images, labels = drawn_images(10)
    archive = Archive(tmp_path / "images", images, labels)
    some = [*archive.take(4, "A"), *archive.take(4, "B")]
    assert len({one.patient for one in some}) == 8
    with np.load(some[0].image.split("#")[0]) as first:
        assert (first["images"] == images[:4]).all()
    with np.load(some[4].image.split("#")[0]) as second:
        assert (second["images"] != images[4:8]).any()
    with pytest.raises(RuntimeError, match="needs more than 10 images"):
        archive.take(3, "A")
