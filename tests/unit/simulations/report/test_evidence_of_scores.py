"""The sections that are made from what models said of each examination."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.order import make_sections
from wardround.simulations.report.sections.scores.calibration import calibration_section
from wardround.simulations.report.sections.scores.decisions import decisions_section
from wardround.simulations.report.sections.scores.discrimination import discrimination_section
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.folder import RunFacts, SplitRow
from wardround.simulations.run_files.predictions import Key, Scores

SITES = ("north", "south")
SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def study_of(classes: tuple[str, ...], multi_label: bool = False, **evaluation: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "test", "task": "classification"},
            "data": {"classes": list(classes), "size": [32, 32], "multi_label": multi_label},
            "model": {"network": "small-cnn"},
            "evaluation": evaluation,
        }
    )


def drawn(
    seed: int, number: int, classes: int, multi_label: bool, prevalence: float = 0.4
) -> Scores:
    generator = np.random.default_rng(seed)
    shares = np.full(classes, (1 - prevalence) / max(1, classes - 1))
    shares[min(1, classes - 1)] = prevalence
    labels = generator.multinomial(1, shares, number) > 0
    if multi_label:
        labels = generator.random((number, classes)) < 0.3
    odds = 2.0 * labels + generator.normal(-1, 1.2, labels.shape)
    scores = 1 / (1 + np.exp(-odds)) if multi_label else np.exp(odds)
    if not multi_label:
        scores = scores / scores.sum(axis=1, keepdims=True)
    return Scores(np.arange(number), np.arange(number) // 2, scores, labels)


def run_of(study: Study, number: int = 160, **prevalence: float) -> RunContents:
    scores: dict[Key, Scores] = {}
    split = []
    classes, multi_label = study.class_count, study.data.multi_label
    for index, site in enumerate(SITES):
        for part in ("validation", "test"):
            split.append(SplitRow(site, part, "", number // 2, number))
            for place, model in enumerate(("federated", "pooled", f"local-{site}")):
                seed = 100 * index + 10 * place + len(part)
                share = prevalence.get(part, 0.4)
                scores[model, site, part] = drawn(seed, number, classes, multi_label, share)
    facts = RunFacts("0.1.0", ("wardround",), "d", 0, "today", "finished")
    contents = RunContents(Path("run"), facts, study, "", (), (), tuple(split), None)
    return replace(contents, scores=scores)


TWO = run_of(study_of(("normal", "pneumonia")))


def made(section: Section | None) -> Section:
    assert section is not None
    return section


def cells(section: Section, caption: str) -> dict[str, list[str]]:
    (table,) = [table for table in section.tables if caption in table.caption]
    return {name: [cell.text for cell in row] for name, row in table.rows}


def federated(contents: RunContents, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    parts = [contents.scores["federated", site, split] for site in SITES]
    return tuple(np.concatenate([getattr(p, n) for p in parts]) for n in ("scores", "labels"))  # type: ignore[return-value]


def test_the_numbers_of_discrimination_are_those_of_scikit_learn() -> None:
    section = made(discrimination_section(TWO))
    scores, labels = federated(TWO)
    area = roc_auc_score(labels[:, 1], scores[:, 1])
    precision = average_precision_score(labels[:, 1], scores[:, 1])
    row = cells(section, "AUROC and average precision")["all hospitals"]
    assert row[0] == f"{area:.3f}"
    assert row[3] == f"{precision:.3f}"
    assert f"{100 * area:.0f} of 100 such pairs" in section.answer[0]
    table = cells(section, "Confusion matrix")
    right = (scores.argmax(axis=1) == labels.argmax(axis=1)) & labels[:, 1]
    assert table["pneumonia"][1] == str(right.sum())
    assert len(section.figures) == 4


def test_hospitals_are_compared_and_intervals_count_patients() -> None:
    section = made(discrimination_section(TWO))
    row = next(t for t in section.tables if "AUROC and average" in t.caption).rows[0][1]
    assert " to " in row[0].note.replace("\u00a0", " ")
    assert row[-1].text == "160"  # two examinations each
    assert any("By hospital it reaches from" in sentence for sentence in section.answer)


def test_hospitals_that_do_not_differ_are_not_called_a_range() -> None:
    first = {key: TWO.scores.get((key[0], SITES[0], key[2])) for key in TWO.scores}
    alike = {key: first[key] or TWO.scores[key] for key in TWO.scores}
    answer = made(discrimination_section(replace(TWO, scores=alike))).answer
    assert not any("reaches from" in sentence for sentence in answer)
    assert any("at each hospital that can tell" in sentence for sentence in answer)


def test_a_probability_is_said_in_a_clinicians_words() -> None:
    section = made(calibration_section(TWO))
    assert section.answer[0].startswith("When the federated model says about ")
    assert "of 100" in section.answer[0]
    assert len(section.figures) == 2


def test_a_temperature_that_other_patients_mislead_is_told() -> None:
    shifted = run_of(study_of(("normal", "pneumonia")), validation=0.74, test=0.4)
    section = made(calibration_section(shifted))
    (warning,) = [s for s in section.answer if s.startswith("Read it with care")]
    assert "of the validation examinations are pneumonia" in warning
    alike = made(calibration_section(run_of(study_of(("normal", "pneumonia")), 2000)))
    assert not [s for s in alike.answer if s.startswith("Read it with care")]


def test_the_operating_point_of_the_study_is_acted_on() -> None:
    aim = {"operating_point": {"specificity": 0.8}, "prevalence": {"pneumonia": 0.02}}
    section = made(decisions_section(run_of(study_of(("normal", "pneumonia"), **aim))))
    assert "leaves 80\u00a0% of the others alone on validation patients" in section.answer[0]
    assert any("Where 2\u00a0% have it" in sentence for sentence in section.answer)
    assert list(cells(section, "Predictive values")) == ["pneumonia"]
    assert list(cells(section, "Operating point")) == ["all hospitals", *SITES]
    assert "usual" not in " ".join(t.caption for t in section.tables)


def test_without_an_operating_point_a_usual_one_is_shown_as_such() -> None:
    section = made(decisions_section(TWO))
    (table,) = [table for table in section.tables if "Operating point" in table.caption]
    assert "The study file names none; this is a usual one." in table.caption
    assert any("evaluation.prevalence" in note for note in section.notes)


def test_sets_of_classes_are_told_for_every_hospital() -> None:
    section = made(decisions_section(TWO))
    found = cells(section, "conformal")
    assert list(found) == list(SITES)
    assert all(0.8 <= float(row[3]) <= 1 for row in found.values())


@pytest.mark.parametrize("multi_label", [False, True])
def test_many_classes_have_a_line_each(multi_label: bool) -> None:
    contents = run_of(study_of(SEVEN, multi_label))
    sections = {section.anchor: section for section in make_sections(contents)}
    assert list(cells(sections["discrimination"], "Each class against all others")) == list(SEVEN)
    assert list(cells(sections["calibration"], "Each class against all others")) == list(SEVEN)
    assert set(cells(sections["decisions"], "Operating point")) == set(SEVEN)
    assert len(sections["discrimination"].figures) == 6
    assert (
        bool([t for t in sections["decisions"].tables if "conformal" in t.caption]) != multi_label
    )


def test_a_study_with_privacy_keeps_the_temperature_out_of_the_model_and_says_so() -> None:
    study = parse_study(
        {
            **TWO.study.model_dump(exclude_none=True, exclude={"privacy", "evaluation"}),
            "privacy": {"mode": "site", "noise_multiplier": 1.0, "clip_norm": 1.0},
            "evaluation": {"keep": "last"},
        }
        if TWO.study
        else {}
    )
    private = replace(TWO, study=study)
    said = " ".join(made(calibration_section(private)).answer)
    assert "It is not part of the model: the study promises privacy" in said
    assert not [note for note in made(decisions_section(private)).notes if "temperature" in note]


def test_hospitals_with_versions_of_their_own_have_temperatures_of_their_own() -> None:
    study = TWO.study
    assert study is not None
    content = study.model_dump(exclude_none=True)
    content["federation"]["strategy"] = "ditto"
    said = " ".join(made(calibration_section(replace(TWO, study=parse_study(content)))).answer)
    assert "each hospital has its own version of the model" in said


def test_a_run_without_scores_has_none_of_the_sections() -> None:
    empty = replace(TWO, scores={})
    assert not [
        make(empty) for make in (discrimination_section, calibration_section) if make(empty)
    ]
    assert decisions_section(empty) is None
    assert decisions_section(replace(TWO, study=None)) is None


def test_a_run_without_validation_patients_says_that_no_threshold_can_be_told() -> None:
    held = {key: part for key, part in TWO.scores.items() if key[2] == "test"}
    contents = replace(TWO, scores=held)
    decisions = made(decisions_section(contents))
    assert "No threshold can be told" in decisions.answer[0]
    assert not decisions.tables
    assert decisions.figures
    calibration = made(calibration_section(contents))
    assert any("there are no validation patients to fit it on" in s for s in calibration.answer)


def test_test_patients_of_one_class_alone_have_no_area() -> None:
    held = dict(TWO.scores)
    for (model, site, split), part in TWO.scores.items():
        labels = np.stack([np.zeros(len(part.labels), bool), np.ones(len(part.labels), bool)], 1)
        held[model, site, split] = replace(part, labels=labels)
    contents = replace(TWO, scores=held)
    section = made(discrimination_section(contents))
    assert "cannot be told" in section.answer[0]
    columns = section.tables[0].columns
    place = columns.index("precision, federated")
    assert {cells[place].text for _, cells in section.tables[0].rows} == {"–"}
    assert made(calibration_section(contents)).answer
    assert "No threshold can be told" in made(decisions_section(contents)).answer[0]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_handful_of_patients_is_no_reason_to_fail(number: int) -> None:
    for study in (study_of(("normal", "pneumonia")), study_of(SEVEN), study_of(SEVEN, True)):
        for section in make_sections(run_of(study, number)):
            assert "nan" not in " ".join((*section.answer, *section.notes))


def test_names_of_hospitals_are_text_on_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    held = {
        (model.replace("north", hostile), site.replace("north", hostile), split): part
        for (model, site, split), part in TWO.scores.items()
    }
    rows = tuple(replace(row, site=row.site.replace("north", hostile)) for row in TWO.split)
    for section in make_sections(replace(TWO, scores=held, split=rows)):
        assert not [figure for figure in section.figures if "<script" in figure.html]
