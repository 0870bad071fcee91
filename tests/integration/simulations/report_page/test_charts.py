"""The charts of the report: pictures that can be read, heard and hovered over."""

import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.integration.simulations.report_page import made_run
from tests.integration.simulations.report_page.made_run import (
    Page,
    made_study,
    make_run,
    round_rows,
    split_rows,
)

from wardround.common.files.tables import write_table
from wardround.common.html import read_style
from wardround.simulations.report import write_report
from wardround.simulations.run_files.folder import (
    FEDERATED,
    MetricRow,
)


def charts_of(page: Page) -> dict[str, ElementTree.Element]:
    """Return the large charts of a page, parsed as XML, by the first word of their titles."""
    found = re.findall(r'<figure class="chart">(<svg .*?</svg>)', page.source, re.DOTALL)
    drawn = [ElementTree.fromstring(text) for text in found]
    return {str(chart.get("aria-label")).split()[0]: chart for chart in drawn}


def told(chart: ElementTree.Element) -> list[str]:
    """Return what the parts of a chart tell on hover."""
    return [title.text or "" for title in chart.iter("{http://www.w3.org/2000/svg}title")]


def test_every_chart_is_a_picture_with_a_title_and_a_description(
    pages: Callable[[str], Page],
) -> None:
    charts = charts_of(pages("classification"))
    assert list(charts) == ["AUROC", "Loss", "Patients", "Examinations", "Megabytes", "Seconds"]
    for chart in charts.values():
        assert chart.get("role") == "img"
        assert chart.findtext("{http://www.w3.org/2000/svg}title") == chart.get("aria-label")
        assert len(chart.findtext("{http://www.w3.org/2000/svg}desc") or "") > 40


def test_every_number_of_the_curves_is_told_on_hover_and_in_a_table(
    pages: Callable[[str], Page],
) -> None:
    page = pages("classification")
    rows = [
        row
        for row in round_rows(made_study("classification"), 8)
        if row.metric == "auroc" and row.model == FEDERATED and row.site == "hospital-3"
    ]
    shown = told(charts_of(page)["AUROC"])
    for row in rows:
        assert f"hospital-3: round {row.round}, {row.value:.4g}" in shown
        assert f"<td>{row.value:.4f}</td>" in page.source


def test_bars_tell_who_holds_what(pages: Callable[[str], Page]) -> None:
    shown = told(charts_of(pages("classification"))["Patients"])
    for row in split_rows(made_study("classification")):
        if not row.class_name:
            assert f"{row.site}, {row.split}: {row.patients} patients" in shown


def test_a_value_that_is_not_a_number_leaves_a_gap_and_a_dash(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = [
        replace(row, value=math.nan)
        if (row.site, row.round, row.model, row.metric) == ("hospital-2", 4, FEDERATED, "auroc")
        else row
        for row in round_rows(made_study("classification"), 8)
    ]
    write_table(run / "metrics.csv", rows, MetricRow)
    chart = charts_of(Page(write_report(run)))["AUROC"]
    ns = "{http://www.w3.org/2000/svg}"
    paths = {path.findtext(f"{ns}title"): path.get("d", "") for path in chart.iter(f"{ns}path")}
    assert paths["hospital-2"].count("M") == 2
    assert paths["hospital-1"].count("M") == 1
    assert not any(text.startswith("hospital-2: round 4,") for text in told(chart))


def test_many_hospitals_are_one_grey_but_for_the_outermost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_run, "SITES", tuple(f"site-{n}" for n in range(64)))
    run = make_run(tmp_path / "run", status="interrupted")
    page = Page(write_report(run))
    chart = charts_of(page)["AUROC"]
    labels = [text.text for text in chart.findall(".//*[@class]/{*}text") if text.text]
    assert [text for text in labels if text.startswith("site-")] == ["site-0", "site-63"]
    assert "every other hospital" in page.text
    assert len(page.source.encode()) < 700_000


def shown_colours(browser: str, report: Path, folder: Path, scheme: int) -> Counter[str]:
    """Return how many pixels of each colour a browser shows; 0 is its dark scheme, 1 its light."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
    options += [f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1200,5000"]
    options += ["--enable-logging=stderr", f"--screenshot={folder / 'page.png'}"]
    done = subprocess.run(
        [browser, *options, report.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Content Security Policy" not in done.stderr
    with Image.open(folder / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return Counter({"#" + bytes(c).hex(): int(n) for c, n in zip(colours, counts, strict=True)})


@pytest.mark.pages
def test_a_browser_draws_the_charts_in_light_and_in_dark(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium: the charts are not drawn in this test")
    report = write_report(make_run(tmp_path / "run"))
    dark, light = (shown_colours(browser, report, tmp_path, scheme) for scheme in (0, 1))
    style = read_style()
    for index in range(7):  # as many classes as the run has
        in_light, in_dark = re.findall(rf"--series-{index}: (#\w+);", style)
        assert light[in_light] > 300, f"series {index} is not seen in light"
        assert dark[in_dark] > 300, f"series {index} is not seen in dark"
        assert dark[in_light] < 50
