import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.common.html import read_style
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.cli.summary import print_summary
from wardround.simulations.report import write_report
from wardround.simulations.report.samples import Samples
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    RunFacts,
    SplitRow,
    TrafficRow,
    local_model,
    write_facts,
)

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
SKIN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TISSUE = ("background", "grey matter", "white matter")
HOME_PAGE = "https://example.org/data"


# --- A synthetic run folder -------------------------------------------------------------


def make_run(
    folder: Path, task: str = "classification", status: str = "finished", rounds_done: int = 8
) -> Path:
    """Write a run folder with invented numbers; unfinished ones hold rounds and nothing else."""
    folder.mkdir(parents=True)
    study = _study(task)
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    finished = status == "finished"
    rows = _round_rows(study, rounds_done) + (_test_rows(study) if finished else [])
    write_table(folder / "metrics.csv", rows, MetricRow)
    write_table(folder / "split.csv", _split_rows(study), SplitRow)
    write_table(folder / "traffic.csv", _traffic_rows(rounds_done), TrafficRow)
    write_facts(folder, _facts(study, status, finished))
    if finished:
        np.savez_compressed(folder / "samples.npz", **asdict(_samples(study)))
    return folder


def _study(task: str) -> Study:
    skin = task == "classification"
    return parse_study(
        {
            "study": {
                "name": "skin-lesions" if skin else "brain-tissue",
                "task": task,
                "description": "Seven kinds of skin lesion, four hospitals." if skin else "",
            },
            "data": {"classes": SKIN if skin else TISSUE, "size": [64, 64], "colour": skin},
            "model": {"network": "small-cnn" if skin else "unet"},
            "federation": {"rounds": 8},
        }
    )


def _round_rows(study: Study, rounds: int) -> list[MetricRow]:
    rows = []
    for site_index, site in enumerate((*SITES, ALL_SITES)):
        for round_ in range(rounds + 1):
            level = 0.9 - 0.35 * math.exp(-round_ / 2.5) - 0.02 * site_index * (site != ALL_SITES)
            level += 0.01 * math.sin(7 * round_ + site_index)
            for metric, value in ((study.metric, level), ("loss", 1.4 - level)):
                rows.append(MetricRow(FEDERATED, round_, site, "validation", metric, "", value, 30))
    for round_ in range(rounds + 1):
        level = 0.91 - 0.3 * math.exp(-round_ / 2)
        rows.append(
            MetricRow(POOLED, round_, ALL_SITES, "validation", study.metric, "", level, 120)
        )
    return rows


def _test_rows(study: Study) -> list[MetricRow]:
    own, federated, pooled = (0.80, 0.88, 0.905, 0.86), (0.91, 0.90, 0.86, 0.915), 0.925
    error = 0.0 if study.metric == "auroc" else 0.006  # Dice: its spread is measured
    rows = []
    for index, site in enumerate((*SITES, ALL_SITES)):
        values = {FEDERATED: (*federated, 0.9)[index], POOLED: pooled - 0.004 * index}
        for trained_at, name in enumerate(SITES):
            values[local_model(name)] = own[trained_at] - 0.05 * (trained_at != index)
        for model, value in values.items():
            other = (
                {"accuracy": value - 0.1} if study.metric == "auroc" else {"hd95": 9 - 8 * value}
            )
            for metric, number in {study.metric: value, **other}.items():
                bound = 0.0004 if metric == "auroc" else 0.0
                rows.append(
                    MetricRow(model, -1, site, "test", metric, "", number, 60, bound, error)
                )
        for class_index, name in enumerate(study.data.classes):
            absent = (site, name) == ("hospital-2", "vasc")
            value = math.nan if absent else values[FEDERATED] - 0.02 * (class_index % 3)
            support = 0 if absent else 8 + class_index
            rows.append(MetricRow(FEDERATED, -1, site, "test", study.metric, name, value, support))
    return rows


def _split_rows(study: Study) -> list[SplitRow]:
    rows = []
    for index, site in enumerate(SITES):
        for split, share in (("train", 70), ("validation", 15), ("test", 60)):
            counts = [
                0
                if (site, name) == ("hospital-2", "vasc")
                else share * (1 + (k * 3 + index * 2) % 5) // 5
                for k, name in enumerate(study.data.classes)
            ]
            total = sum(counts) if study.study.task == "classification" else share
            rows.append(SplitRow(site, split, "", total + 5, total))
            rows += [
                SplitRow(site, split, name, count, count)
                for name, count in zip(study.data.classes, counts, strict=True)
                if study.study.task == "classification"
            ]
    return rows


def _traffic_rows(rounds: int) -> list[TrafficRow]:
    return [
        TrafficRow(FEDERATED, r, site, 1_650_000, 1_652_000, 3 + index + 0.3 * (r % 3), 12)
        for r in range(1, rounds + 1)
        for index, site in enumerate(SITES)
    ]


def _facts(study: Study, status: str, finished: bool) -> RunFacts:
    return RunFacts(
        wardround="0.1.0",
        command=("wardround", "simulate", "my study.toml", "--seed", "0"),
        digest=study.digest,
        seed=0,
        started="2026-03-01 10:00:00",
        status=status,
        finished="2026-03-01 10:12:00" if finished else None,
        environment={"python": "3.11.7", "torch": "2.13.0", "cores": "2"},
        seconds={"data": 2.1, "federated": 301.4, "pooled": 122.0, "alone": 130.2},
        notes=("hospital-2 holds no example of vasc.",),
        data={"name": "Invented", "licence": "CC0", "citation": "Nobody 2026", "home": HOME_PAGE},
        best_round=7 if finished else 2,
        parameters=412_345,
    )


def _samples(study: Study) -> Samples:
    generator = np.random.default_rng(0)
    count = 14
    y, x = np.mgrid[:64, :64]
    site = np.array([SITES[i % 4] for i in range(count)])
    score = np.linspace(0.55, 0.99, count)
    radius = [np.hypot(x - 32, y - 30 - i % 3) for i in range(count)]
    truth = np.stack([(r < 26).astype(np.uint8) + (r < 15) for r in radius])
    images = truth / 3 + 0.1 + 0.05 * generator.standard_normal(truth.shape)
    images = images.clip(0, 1).astype(np.float32)
    if study.study.task == "segmentation":
        return Samples(images, truth, np.roll(truth, 2, axis=2), site, score)
    colours = np.stack([images, images * 0.7, images * 0.6], axis=-1)
    labels = np.arange(count) % 7
    return Samples(colours, labels, np.where(labels == 4, 5, labels), site, score)


# --- Reading the page with the standard library ------------------------------------------


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    folder = tmp_path_factory.mktemp("runs")
    written: dict[str, Page] = {}

    def page(kind: str) -> Page:
        if kind not in written:
            task = "segmentation" if kind == "segmentation" else "classification"
            status, rounds = ("interrupted", 3) if kind == "interrupted" else ("finished", 8)
            run = make_run(folder / kind, task, status, rounds)
            written[kind] = Page(write_report(run))
        return written[kind]

    return page


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
    assert outside == [HOME_PAGE]
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


# --- The charts ---------------------------------------------------------------------------


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
        for row in _round_rows(_study("classification"), 8)
        if row.metric == "auroc" and row.model == FEDERATED and row.site == "hospital-3"
    ]
    shown = told(charts_of(page)["AUROC"])
    for row in rows:
        assert f"hospital-3: round {row.round}, {row.value:.4g}" in shown
        assert f"<td>{row.value:.4f}</td>" in page.source


def test_bars_tell_who_holds_what(pages: Callable[[str], Page]) -> None:
    shown = told(charts_of(pages("classification"))["Patients"])
    for row in _split_rows(_study("classification")):
        if not row.class_name:
            assert f"{row.site}, {row.split}: {row.patients} patients" in shown


def test_a_value_that_is_not_a_number_leaves_a_gap_and_a_dash(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = [
        replace(row, value=math.nan)
        if (row.site, row.round, row.model, row.metric) == ("hospital-2", 4, FEDERATED, "auroc")
        else row
        for row in _round_rows(_study("classification"), 8)
    ]
    write_table(run / "metrics.csv", rows, MetricRow)
    chart = charts_of(Page(write_report(run)))["AUROC"]
    ns = "{http://www.w3.org/2000/svg}"
    paths = {path.findtext(f"{ns}title"): path.get("d", "") for path in chart.iter(f"{ns}path")}
    assert paths["hospital-2"].count("M") == 2
    assert paths["hospital-1"].count("M") == 1
    assert not any(text.startswith("hospital-2: round 4,") for text in told(chart))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_small(pages: Callable[[str], Page], kind: str) -> None:
    assert len(pages(kind).source.encode()) < 700_000


def test_many_hospitals_are_one_grey_but_for_the_outermost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SITES", tuple(f"site-{n}" for n in range(64)))
    run = make_run(tmp_path / "run", status="interrupted")
    page = Page(write_report(run))
    chart = charts_of(page)["AUROC"]
    labels = [text.text for text in chart.findall(".//*[@class]/{*}text") if text.text]
    assert [text for text in labels if text.startswith("site-")] == ["site-0", "site-63"]
    assert "every other hospital" in page.text
    assert len(page.source.encode()) < 700_000


def test_an_interrupted_run_says_how_far_it_came(pages: Callable[[str], Page]) -> None:
    text = pages("interrupted").text
    assert "This run was interrupted after round 3 of 8." in text
    assert "No model was tested" in text
    assert "The run left no sample images" in text


def test_the_command_can_be_pasted_into_a_shell(pages: Callable[[str], Page]) -> None:
    assert "wardround simulate 'my study.toml' --seed 0" in pages("classification").text


def test_names_from_users_cannot_become_code(tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    run = make_run(tmp_path / "run")
    clean = Page(write_report(run))
    facts = replace(
        _facts(_study("classification"), "finished", True),
        notes=(attack,),
        data={"name": attack, "home": "javascript:alert(1)"},
        environment={attack: attack},
        command=(attack,),
    )
    write_facts(run, facts)
    for name in ("metrics.csv", "split.csv", "traffic.csv"):
        text = (run / name).read_text(encoding="utf-8")
        text = text.replace("hospital-1", attack).replace(",mel,", f",{attack},")
        (run / name).write_text(text, encoding="utf-8")
    (run / "study.toml").write_text(f"# {attack}\n", encoding="utf-8")
    page = Page(write_report(run))
    assert attack in page.text  # it is shown, as text
    assert len(page.all_of("script")) <= len(clean.all_of("script"))
    assert not [a for _, a in page.tags if "onerror" in a]
    assert not [a for a in page.all_of("a") if str(a.get("href")).startswith("javascript")]


def test_a_folder_with_nothing_but_facts_has_a_page(tmp_path: Path) -> None:
    write_facts(tmp_path, _facts(_study("classification"), "failed", False))
    text = Page(write_report(tmp_path)).text
    assert "This run failed after round 0." in text
    assert "Nothing was measured yet." in text


def test_pictures_of_ones_own_data_are_not_called_public(tmp_path: Path) -> None:
    run, study = make_run(tmp_path / "run"), _study("classification")

    def text_with(data: str) -> str:
        changed = with_changes(study, {"simulation.data": data})
        (run / "study.toml").write_text(changed.to_toml(), encoding="utf-8")
        return Page(write_report(run)).text

    assert "Test images of a public data set" in text_with("medmnist")
    text = text_with("folder")
    assert "Test images of your own data" in text
    assert "public data set" not in text


def test_a_run_without_comparison_says_that_it_has_no_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    study = _study("classification")
    rows = [row for row in _test_rows(study) if row.model == FEDERATED]
    write_table(run / "metrics.csv", _round_rows(study, 8) + rows, MetricRow)
    text = Page(write_report(run)).text
    assert "This run cannot say whether a hospital gained" in text
    assert "mean over 4 hospitals): 0.896" in text


def test_a_hospital_that_tests_one_class_only_is_read_with_care(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = [
        row
        for row in _split_rows(_study("classification"))
        if row.site != "hospital-4" or row.split != "test" or row.class_name in ("", "nv")
    ]
    write_table(run / "split.csv", rows, SplitRow)
    text = Page(write_report(run)).text
    assert text.count("with care") == 1
    assert "Read hospital-4 with care: all its test patients are of class nv" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", "{"), ("metrics.csv", "model,round\nfederated,x\n"), ("samples.npz", "no")],
)
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, name: str, content: str) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=name):
        write_report(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no run\.json"):
        write_report(tmp_path)


def test_a_missing_extra_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_facts(tmp_path, _facts(_study("classification"), "finished", True))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"jinja2.*pip install 'jinja2>=3'"):
        write_report(tmp_path)


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
