"""A reader's page in a real browser: classes by key and click, a mask by mouse and by keyboard."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from tests.browser.conftest import Heard
from tests.support.hospitals.review_ward import (
    CLASSIFIES,
    SEGMENTS,
    desk_of,
    review_site,
    study_of,
)

from wardround.client.data.manifest.corrections import MASK_FOLDER, read_corrections
from wardround.client.page.review.page import ReadingPage
from wardround.common.html.live.serving import live_page

pytestmark = pytest.mark.browser


def _lines(path: Path, count: int) -> list[str]:
    until = time.monotonic() + 20
    while len(read_corrections(path).lines) < count:
        assert time.monotonic() < until, "nothing was written down"
        time.sleep(0.05)
    return [one.new for one in read_corrections(path).lines]


def test_classes_are_chosen_by_click_and_by_key(
    tmp_path: Path, browser_page: Page, heard: Heard, axe_findings: Callable[[Page], list[str]]
) -> None:
    site = review_site(tmp_path / "north")
    reading = ReadingPage(desk_of(site, study_of(CLASSIFIES), budget=2), "AB")
    with live_page(reading.page()) as served:
        browser_page.goto(served.link)
        expect(browser_page.locator("#progress")).to_contain_text("2 of 2 cases are left")
        expect(browser_page.locator("#case img")).to_be_visible()
        assert axe_findings(browser_page) == []
        browser_page.get_by_role("button", name="abnormal", exact=True).click()
        expect(browser_page.locator("#progress")).to_contain_text("1 of 2 cases are left")
        expect(browser_page.get_by_role("button", name="normal", exact=True)).to_be_enabled()
        browser_page.locator("body").press("1")
        expect(browser_page.locator("#case")).to_contain_text("All of them are read")
    assert _lines(site.corrections_path, 2) == ["abnormal", "normal"]
    assert heard.complaints == []
    assert len(heard.origins) == 1


def test_a_mask_is_drawn_by_mouse_and_by_keyboard(
    tmp_path: Path, browser_page: Page, heard: Heard, axe_findings: Callable[[Page], list[str]]
) -> None:
    site = review_site(tmp_path / "north", "mask")
    reading = ReadingPage(desk_of(site, study_of(SEGMENTS), budget=1), "AB")
    with live_page(reading.page()) as served:
        browser_page.goto(served.link)
        canvas = browser_page.locator("canvas")
        expect(canvas).to_be_visible()
        assert axe_findings(browser_page) == []
        canvas.focus()
        for key in ("0", *("+",) * 15, "Space", "1", *("-",) * 16):  # wipe, then a small brush
            canvas.press(key)
        expect(browser_page.locator("[role=status]").last).to_contain_text("brush of 1")
        for key in ("ArrowRight", "Space", "z", "ArrowDown", "Space"):
            canvas.press(key)
        box = canvas.bounding_box()
        assert box is not None
        step = box["width"] / 16
        browser_page.mouse.move(box["x"] + 2.5 * step, box["y"] + 1.5 * step)
        browser_page.mouse.down()
        browser_page.mouse.move(box["x"] + 6.5 * step, box["y"] + 1.5 * step)
        browser_page.mouse.up()
        browser_page.get_by_role("button", name="Write down").click()
        expect(browser_page.locator("#case")).to_contain_text("All of them are read")
    (name,) = _lines(site.corrections_path, 1)
    drawn = np.asarray(Image.open(site.corrections_path.with_name(MASK_FOLDER) / name))
    wanted = np.zeros((16, 16), np.uint8)
    wanted[1, 2:7] = 1
    wanted[9, 9] = 1
    assert np.array_equal(drawn, wanted)
    assert heard.complaints == []
