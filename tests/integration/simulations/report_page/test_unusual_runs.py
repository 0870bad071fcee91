"""Reports of runs that are not whole, not usual, or not meant well."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.simulations.report_page.made_run import (
    Page,
    final_rows,
    made_facts,
    made_study,
    make_run,
    round_rows,
    split_rows,
)

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.common.study.loading import with_changes
from wardround.simulations.report import write_report
from wardround.simulations.run_files.folder import (
    FEDERATED,
    MetricRow,
    SplitRow,
    write_facts,
)


def test_names_from_users_cannot_become_code(tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    run = make_run(tmp_path / "run")
    clean = Page(write_report(run))
    facts = replace(
        made_facts(made_study("classification"), "finished", True),
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
    write_facts(tmp_path, made_facts(made_study("classification"), "failed", False))
    text = Page(write_report(tmp_path)).text
    assert "This run failed after round 0." in text
    assert "Nothing was measured yet." in text


def test_pictures_of_ones_own_data_are_not_called_public(tmp_path: Path) -> None:
    run, study = make_run(tmp_path / "run"), made_study("classification")

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
    study = made_study("classification")
    rows = [row for row in final_rows(study) if row.model == FEDERATED]
    write_table(run / "metrics.csv", round_rows(study, 8) + rows, MetricRow)
    text = Page(write_report(run)).text
    assert "This run cannot say whether a hospital gained" in text
    assert "mean over 4 hospitals): 0.896" in text


def test_a_hospital_that_tests_one_class_only_is_read_with_care(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = [
        row
        for row in split_rows(made_study("classification"))
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
    write_facts(tmp_path, made_facts(made_study("classification"), "finished", True))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"jinja2.*pip install 'jinja2>=3'"):
        write_report(tmp_path)
