"""Images and masks of a queue in a folder; edited there, they come back as corrections."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.hospitals.review_ward import (
    CLASSIFIES,
    SEGMENTS,
    desk_of,
    review_site,
    study_of,
)
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.review.cases import list_cases
from wardround.client.clinic.review.handing_out import hand_out
from wardround.client.clinic.review.readers import compare_readers
from wardround.client.clinic.review.taking import Desk, take
from wardround.common.errors import InputError


def test_a_folder_that_was_not_touched_changes_nothing_and_one_brush_does(tmp_path: Path) -> None:
    site, study = review_site(tmp_path / "north", "mask"), study_of(SEGMENTS)
    desk = desk_of(site, study, budget=4)
    assert hand_out(desk, tmp_path / "out") == 4
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"{c}{end}" for c in desk.cases for end in (".png", "-image.png"))
    for case, one in desk.cases.items():
        held = one.examination.mask
        assert held is not None
        drawn = np.asarray(Image.open(tmp_path / "out" / f"{case}.png"))
        assert np.array_equal(drawn, np.asarray(Image.open(held.path)))
    first = next(iter(desk.cases))
    drawn = np.asarray(Image.open(tmp_path / "out" / f"{first}.png")).copy()
    drawn[0, :5] = 1
    Image.fromarray(drawn).save(tmp_path / "out" / f"{first}.png")
    taken = take(desk, tmp_path / "out", "AB")
    assert not taken.refused
    assert len(taken.written) == 4
    assert taken.changed == 1  # a file that was saved anew is no other mask

    drawn[:] = 0
    Image.fromarray(drawn).save(tmp_path / "out" / f"{first}.png")
    again = Desk(site, desk.queue, study, list_cases(site, study))
    take(again, tmp_path / "out", "CD")
    (pair,) = compare_readers(Desk(site, desk.queue, study, list_cases(site, study)))
    assert (pair.measure, pair.cases, pair.differ) == ("Dice", 4, (first,))
    assert pair.value.value == pytest.approx(0.75)


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    desk = desk_of(review_site(tmp_path / "north", "mask"), study_of(SEGMENTS), budget=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="holds something"):
        hand_out(desk, tmp_path / "out")


def test_classes_have_nothing_to_draw(tmp_path: Path, wardround: Callable[..., Said]) -> None:
    site = review_site(tmp_path / "north")
    desk_of(site, study_of(CLASSIFIES), budget=1)
    said = wardround("site", "review", "open", site.folder, "--out", tmp_path / "out")
    assert said.code == 2
    assert "nothing to draw" in said.err
    assert not (tmp_path / "out").exists()
