"""The report as PDF, data and Markdown, its documents, and what a wrong command is told."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.simulations.report_page.made_run import SITES, make_run
from tests.support.studies.tiny_study import Said

from wardround.common.errors import InputError
from wardround.common.html.charts.figure import Figure
from wardround.common.models.card import Origin, card_fields
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.documents.field import DocumentField
from wardround.common.models.model_folder import CONTRACT
from wardround.simulations.report import write_report
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import read_contents
from wardround.simulations.report.documents.documents import make_documents
from wardround.simulations.report.formats import parts
from wardround.simulations.report.formats.data import ReportData
from wardround.simulations.report.formats.pdf import for_paper, light_colours
from wardround.simulations.report.sections.section import Section

Command = Callable[..., Said]
SCHEMA = Path(__file__).parents[4] / "docs" / "reference" / "report.schema.json"
SECTION = Section(
    "planted",
    "Is this shown everywhere?",
    ("Yes, in each format.", "And this too."),
    figures=(Figure("<figure>drawn</figure>", "A planted chart."),),
    tables=(Table("A planted table.", "site", ("a|b",), (("one", (Cell("0.5", "n = 3"),)),)),),
    notes=("A planted note.",),
)


def make_whole_run(folder: Path, task: str = "classification") -> Path:
    """Write a run folder with a kept model's contract."""
    run = make_run(folder, task)
    study = read_contents(run).study
    assert study is not None
    contract = Contract(
        wardround="0.1.0",
        name="federated",
        run="ab" * 16,
        round=5,
        study=study_content(study),
        study_digest=study.digest,
        parameters="0" * 64,
        seen_note="nothing was looked at",
    )
    model = run / "models" / "federated"
    model.mkdir(parents=True)
    (model / CONTRACT).write_text(contract.model_dump_json())
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole_run(tmp_path_factory.mktemp("formats") / "run")


def test_json_fits_its_schema_and_holds_what_the_page_shows(run: Path) -> None:
    text = write_report(run, "json").read_text()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    content = json.loads(text, parse_constant=refuse)
    data = ReportData.model_validate(content)
    anchors = [section.anchor for section in data.sections]
    page = write_report(run).read_text()
    for anchor in re.findall(r'<section[^>]* id="([a-z-]+)"', page):
        assert anchor in (*anchors, "documents"), anchor
    assert any(row.value is None for row in data.metrics), "hospital-2 has no such class"
    assert {row.site for row in data.split} == set(SITES)
    assert all(chart.rows for section in data.sections for chart in section.charts)
    (own,) = [s.tables[0] for s in data.sections if s.anchor == "hospitals"]
    assert own.rows[0].cells[2].value == pytest.approx(0.91)
    assert data.model_card
    assert data.data_sheet


def test_the_documented_schema_is_that_of_the_data() -> None:
    assert json.loads(SCHEMA.read_text()) == ReportData.model_json_schema()


def test_markdown_has_every_heading_sentence_and_table(run: Path) -> None:
    text = write_report(run, "markdown").read_text()
    report = parts.make_report(read_contents(run))
    for part in report.parts:
        assert f"## {part.title}" in text
        assert text.count("| --- |") >= 5
        for table in part.tables:
            assert all(heading in text for heading, _ in table.rows)
    assert "[Model card](model-card.md)" in text
    assert "[Data sheet](data-sheet.md)" in text
    columns = {line.count(" | ") for line in text.splitlines() if line.startswith("| hospital")}
    assert columns, "rows of hospitals"
    assert "## The study file" in text


@pytest.mark.parametrize("kind", ["html", "json", "markdown"])
def test_a_new_section_appears_in_every_format(
    run: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.simulations.report.sections import order

    monkeypatch.setattr(order, "SECTIONS", (lambda _: SECTION, lambda _: None))
    text = write_report(run, kind).read_text()
    for words in ("Is this shown everywhere?", "And this too.", "A planted", "0.5", "n = 3"):
        assert words in text, words


def test_text_of_others_cannot_become_markdown(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    hostile = "[click](javascript:x) <script>alert(1)</script> | cell\n# heading"
    facts["notes"], facts["data"]["title"] = [hostile], hostile
    (run / "run.json").write_text(json.dumps(facts))
    for path in (write_report(run, "markdown"), run / "model-card.md", run / "data-sheet.md"):
        text = path.read_text()
        assert not re.search(r"(?<!\\)\]\(javascript", text)
        assert not re.search(r"(?<!\\)<script", text)
        assert "\n# heading" not in text
    read_back = json.loads(write_report(run, "json").read_text())
    assert hostile in [note for s in read_back["sections"] for note in s["notes"]]


# --- Model card and data sheet -------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_no_field_that_a_tool_could_fill_is_empty(tmp_path: Path, task: str) -> None:
    documents = make_documents(read_contents(make_whole_run(tmp_path / "run", task)))
    for fields in (documents.model_card, documents.data_sheet):
        assert [field.key for field in fields if field.is_empty] == []
        assert [f.key for f in fields if f.known_by == "person" and not f.filled_by] == []
        assert len({field.key for field in fields}) == len(fields)
    by_key = {field.key: field for field in documents.model_card}
    # What a run can know must not be put off to a person.
    for key in (
        *("network", "preprocessing", "weights", "strategy", "rounds", "measured", "sites"),
        *("source", "licence", "privacy", "limits", "code", "environment", "verdict"),
    ):
        assert by_key[key].known_by == "tool", key
        assert not any("ask whoever" in one for one in by_key[key].answer if key != "licence")
    assert DocumentField("x", "s", "t", ("", " ")).is_empty, "the test can fail"


def test_a_card_holds_the_runs_own_numbers(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path / "run")
    contents = read_contents(run)
    write_report(run)
    card, sheet = ((run / f"{name}.md").read_text() for name in ("model-card", "data-sheet"))
    assert contents.facts.digest in (run / "data-sheet.json").read_text()
    assert "auroc: 0.9100" in card
    assert "made after round 5 of 8" in card
    assert "worst: hospital-3" in card
    assert contents.facts.data["licence"] in card
    assert contents.facts.data["licence"] in sheet
    assert "to be filled by: each hospital's data-protection officer" in card
    held = sum(r.patients for r in contents.split if r.site == "hospital-1" and not r.class_name)
    assert held > 0
    read_back = json.loads((run / "model-card.json").read_text())
    assert {field["known_by"] for field in read_back["fields"]} == {"tool", "person"}


def test_small_counts_of_own_data_are_not_told(tmp_path: Path) -> None:
    contents = read_contents(make_whole_run(tmp_path / "run"))
    assert contents.study is not None
    rows = tuple(replace(row, patients=3, examinations=4) for row in contents.split)
    simulation = contents.study.simulation.model_copy(update={"data": "folder"})
    own = replace(
        contents, split=rows, study=contents.study.model_copy(update={"simulation": simulation})
    )
    documents = make_documents(own)
    told = {field.key: " ".join(field.answer) for field in documents.data_sheet}
    assert "fewer than 10 patients" in told["counts"]
    assert not re.search(r"\b[34] (patients|examinations)", told["counts"])
    card = {field.key: " ".join(field.answer) for field in documents.model_card}
    assert "fewer than 10 train" in card["sites"]
    public = contents.study.simulation.model_copy(update={"data": "medmnist"})
    other = replace(own, study=contents.study.model_copy(update={"simulation": public}))
    shown = {field.key: " ".join(field.answer) for field in make_documents(other).data_sheet}
    assert "3 patients, 4 examinations" in shown["counts"]
    laid_out = replace(other.facts, data={**other.facts.data, "whose": "your own"})
    assert replace(other, facts=laid_out).own_data, "in whatever layout"
    assert not other.own_data


def test_a_run_without_models_has_a_data_sheet_and_no_card(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="interrupted", rounds_done=2)
    for kind in ("html", "json", "markdown"):
        write_report(run, kind)
    assert (run / "data-sheet.md").is_file()
    assert not (run / "model-card.md").exists()
    assert json.loads((run / "report.json").read_text())["model_card"] == []


def test_a_hospitals_card_of_a_fetched_model_has_no_empty_field(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path / "run")
    study = read_contents(run).study
    assert study is not None
    contract = Contract.model_validate_json((run / "models/federated" / CONTRACT).read_bytes())
    fields = card_fields(contract, study, Origin(("patients",), ("nothing",), "ask"), ())
    assert [field.key for field in fields if field.is_empty] == []


# --- The PDF ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "begun",
        *(pytest.param(t, marks=pytest.mark.long) for t in ("classification", "segmentation")),
    ],
)
def test_the_pdf_has_a_head_page_numbers_and_is_small(tmp_path: Path, kind: str) -> None:
    """A run with all pictures takes 10 s to draw, one that has only begun 2 s."""
    pytest.importorskip("weasyprint")
    if kind == "begun":
        run = make_run(tmp_path / "run", status="interrupted", rounds_done=1)
    else:
        run = make_whole_run(tmp_path / "run", kind)
    path = write_report(run, "pdf")
    assert path.read_bytes().startswith(b"%PDF-")
    assert path.stat().st_size < 1e6
    text = _text_of(path)
    if text is not None:
        contents = read_contents(run)
        pages = text.split("\f")[:-1]
        assert len(pages) > 2
        for number, page in enumerate(pages, 1):
            assert f"{number} of {len(pages)}" in page
        assert all(contents.title in page for page in pages)
        assert all(contents.facts.digest[:16] in page for page in pages[1:])


def _text_of(path: Path) -> str | None:
    try:
        done = subprocess.run(
            ["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        return None
    return done.stdout


def test_what_goes_to_paper_names_no_colour_that_the_printer_must_look_up(run: Path) -> None:
    page = for_paper(write_report(run).read_text())
    body = page.partition("</style>")[2]
    assert "var(--" not in body
    assert "--shade" not in body
    assert re.fullmatch("#[0-9a-f]{6}", light_colours()["--ink"])
    assert "prefers-color-scheme" not in page


@pytest.mark.parametrize(("fault", "words"), [(ImportError(), "weasyprint"), (OSError(), "Pango")])
def test_a_missing_library_is_named_with_its_remedy(
    run: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, words: str
) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "weasyprint":
                raise fault

    for name in [name for name in sys.modules if name.partition(".")[0] == "weasyprint"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(InputError, match=words) as refused:
        write_report(run, "pdf")
    assert "print the page" in str(refused.value)
    assert "libpango" in str(refused.value)


# --- The command --------------------------------------------------------------------------------


def test_the_command_writes_each_format_where_it_is_told(
    run: Path, tmp_path: Path, wardround: Command
) -> None:
    for kind, name in (("html", "r.html"), ("json", "r.json"), ("markdown", "r.md")):
        said = wardround("report", run, "--format", kind, "--out", tmp_path / name)
        assert said.code == 0, said.err
        assert said.out.strip() == str(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    address = re.search(r"\[Model card\]\((.*)\)", (tmp_path / "r.md").read_text())
    assert address is not None
    assert (tmp_path / address[1]).is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "docx"), "Known: html, json, markdown, pdf"),
        (("--format", "HTML"), "Did you mean 'html'?"),
        (("--out", "."), "is a folder"),
        (("--format", "json", "--out", "nowhere/r.json"), "cannot write"),
    ],
)
def test_a_wrong_command_is_told_what_is_right(
    run: Path,
    tmp_path: Path,
    wardround: Command,
    words: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = wardround("report", run, *words)
    assert said.code == 2
    assert told in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_infinite_and_undefined_numbers_are_null(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path / "run")
    with (run / "metrics.csv").open("a") as stream:
        stream.write("federated,-1,hospital-1,test,loss,,inf,3,nan,nan\n")
    rows: list[dict[str, Any]] = json.loads(write_report(run, "json").read_text())["metrics"]
    last = rows[-1]
    assert (last["value"], last["error_bound"], last["standard_error"]) == (None, None, None)
    assert all(v is None or math.isfinite(v) for row in rows for v in [row["value"]])
    assert np.isfinite([row["support"] for row in rows]).all()
