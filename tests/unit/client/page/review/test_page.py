"""What a reader's page shows and writes down, without a browser."""

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

from wardround.client.data.manifest.corrections import MASK_FOLDER, read_corrections
from wardround.client.page.review.drawing import pack_labels
from wardround.client.page.review.page import ReadingPage
from wardround.common.errors import InputError


def _drawn(page: ReadingPage) -> str:
    return "".join(page.page().draw().values())


def _case(page: ReadingPage) -> str:
    text = _drawn(page)
    return text.split('name="case" value="')[1].split('"')[0]


def test_classes_are_written_down_one_case_after_the_other(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north")
    page = ReadingPage(desk_of(site, study_of(CLASSIFIES), budget=2), "AB")
    text = _drawn(page)
    assert "2 of 2 cases are left" in text
    assert "data:image/png;base64," in text
    for hidden in ("CANARY", "random", "chosen"):
        assert hidden not in text
    first = _case(page)
    page.label({"case": first, "label": "abnormal"}, "local")
    with pytest.raises(InputError, match="another case is shown"):
        page.label({"case": first, "label": "normal"}, "local")
    with pytest.raises(InputError, match="another case"):
        page.label({"case": "x", "label": "normal"}, "local")
    second = _case(page)
    assert second != first
    with pytest.raises(InputError, match="label"):
        page.label({"case": second, "label": "a zebra"}, "local")
    page.skip({"case": second}, "local")
    assert "All of them are read" in _drawn(page)
    (line,) = read_corrections(site.corrections_path).lines
    assert (line.case, line.new, line.reader, line.source) == (first, "abnormal", "AB", "page")
    again = ReadingPage(page.desk, "CD")
    assert "2 of 2" in _drawn(again)


def test_a_mask_that_was_drawn_is_kept(tmp_path: Path) -> None:
    site = review_site(tmp_path / "north", "mask")
    page = ReadingPage(desk_of(site, study_of(SEGMENTS), budget=1), "AB")
    case = _case(page)
    labels = np.zeros((16, 16), np.uint8)
    labels[3, 4:9] = 1
    fields = {"case": case, "slice": "0", "labels": pack_labels(labels), "to": "done"}
    for wrong in ({"labels": "0:9"}, {"slice": "4"}, {"case": "x"}):
        with pytest.raises(InputError):
            page.mask({**fields, **wrong}, "local")
    assert not site.corrections_path.exists()
    page.mask(fields, "local")
    (line,) = read_corrections(site.corrections_path).lines
    kept = site.corrections_path.with_name(MASK_FOLDER) / line.new
    assert np.array_equal(np.asarray(Image.open(kept)), labels)
