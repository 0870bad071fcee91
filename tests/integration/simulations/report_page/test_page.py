"""The page of a run: whole, small, readable, and first of all its verdict."""

import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.simulations.report_page.made_run import (
    HOME_PAGE,
    Page,
    make_run,
)

from wardround.common.files.tables import write_table
from wardround.simulations.cli.summary import print_summary
from wardround.simulations.report import write_report
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    SplitRow,
    local_model,
)

KINDS = ("classification", "segmentation", "interrupted")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_loads_nothing_from_a_network(pages: Callable[[str], Page], kind: str) -> None:
    page = pages(kind)
    sources = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and value
    ]
    outside = [value for value in sources if not value.startswith(("#", "data:image/png;base64,"))]
    assert outside == ["data-sheet.md", HOME_PAGE]  # a file beside the page, and a link
    assert not page.all_of("link")
    (policy,) = [m for m in page.all_of("meta") if m.get("http-equiv")]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data: blob:;")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_can_be_read_with_a_screen_reader(pages: Callable[[str], Page], kind: str) -> None:
    page = pages(kind)
    assert page.all_of("html") == [{"lang": "en"}]
    pictures = [image for image in page.all_of("img") if image.get("class") != "mask"]
    assert all(image.get("alt") for image in pictures)
    assert all(
        "alt" in image for image in page.all_of("img")
    )  # a mask's is empty: its image says it
    assert all(header.get("scope") in ("col", "row") for header in page.all_of("th"))
    assert len(page.all_of("caption")) == len(page.all_of("table")) > 0
    assert all(a.get("aria-label") for _, a in page.tags if a.get("role") == "img")
    assert len(page.all_of("h1")) == 1
    ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
    assert set(ids.values()) == {1}


def test_the_verdict_comes_first_and_is_computed(pages: Callable[[str], Page]) -> None:
    page = pages("segmentation")
    sentence = "3 of 4 hospitals gained from training together; hospital-3 lost 0.045 Dice."
    assert page.text.index(sentence) < page.text.index("Did each hospital gain?")
    assert "federated 0.896, compared with pooled 0.919 and own data alone 0.861" in page.text
    assert "+0.110 ± 0.023" in page.text


def test_values_that_do_not_exist_are_dashes_with_a_reason(pages: Callable[[str], Page]) -> None:
    assert "– no such class here" in pages("classification").text
    assert "nan" not in pages("classification").text.lower().split()


def test_sample_pictures_are_shown_for_both_tasks(pages: Callable[[str], Page]) -> None:
    assert len(pages("classification").all_of("img")) == 12
    assert "truth: mel; model: nv (69%)" in pages("classification").text
    images = pages("segmentation").all_of("img")
    masks = [image for image in images if image.get("class") == "mask"]
    assert (len(images) - len(masks), len(masks)) == (3 * 8, 2 * 8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_small(pages: Callable[[str], Page], kind: str) -> None:
    assert len(pages(kind).source.encode()) < 700_000


def test_an_interrupted_run_says_how_far_it_came(pages: Callable[[str], Page]) -> None:
    text = pages("interrupted").text
    assert "This run was interrupted after round 3 of 8." in text
    assert "No model was tested" in text
    assert "The run left no sample images" in text


def test_the_command_can_be_pasted_into_a_shell(pages: Callable[[str], Page]) -> None:
    assert "wardround simulate 'my study.toml' --seed 0" in pages("classification").text


def test_the_tables_of_eight_hospitals_fit_the_page(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium: the page is not laid out in this test")
    folder = make_run(tmp_path / "run")
    sites = [f"a_hospital_with_a_long_name_{number}" for number in range(8)]
    models = (FEDERATED, POOLED, *map(local_model, sites))
    rows = [
        MetricRow(model, -1, site, "test", "auroc", "", 0.8, 60)
        for model in models
        for site in (*sites, ALL_SITES)
    ]
    rows += [
        MetricRow(FEDERATED, -1, site, "test", "auroc", "nv", math.nan, 0)
        for site in (*sites, ALL_SITES)
    ]
    write_table(folder / "metrics.csv", rows, MetricRow)
    write_table(folder / "split.csv", [SplitRow(s, "test", "", 9, 9) for s in sites], SplitRow)
    measured = (
        "<script>document.title = 'cut off: ' + Math.max("
        "...[...document.querySelectorAll('#matrix .wide, #classes .wide')]"
        ".map(e => e.scrollWidth - e.clientWidth))</script>"
    )
    page = write_report(folder).read_text(encoding="utf-8")
    page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{measured}</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,2000"]
    done = subprocess.run(
        [browser, *options, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>cut off: 0</title>" in done.stdout


def test_two_hospitals_whose_names_begin_alike_are_told_apart_at_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = make_run(tmp_path / "run")
    sites = ("vidir_dermatoscopy_molemax", "vidir_dermatoscopy_modern")
    rows = [
        MetricRow(model, -1, site, "test", "auroc", "", 0.8, 60)
        for model in (FEDERATED, POOLED, *map(local_model, sites))
        for site in (*sites, ALL_SITES)
    ]
    write_table(folder / "metrics.csv", rows, MetricRow)
    write_table(folder / "split.csv", [SplitRow(s, "test", "", 9, 9) for s in sites], SplitRow)
    print_summary(folder)
    printed = capsys.readouterr().out
    assert all(f"│ {site} " in printed for site in sites)
    assert max(map(len, printed.splitlines())) <= 80
