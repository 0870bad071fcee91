"""The words on the page: one sentence a hospital, and no more certain than the numbers."""

import re
from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.common.statistics.joining.worth_joining import Gain, Joining, Reason, judge_joining
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.evidence.joining import Choice, SiteJoining
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.worth_joining import (
    WorthJoining,
    gain_cell,
    headline,
    losses,
    read_worth_joining,
    reason,
    worth_joining_section,
)
from wardround.simulations.run_files.folder import RunFacts

UNKNOWN = Gain(float("nan"), float("nan"), 0.0, 50)


def study() -> Study:
    return parse_study(
        {
            "study": {"name": "joining", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [8, 8]},
            "model": {"network": "small-cnn"},
        }
    )


def site(name: str, value: float, error: float, patients: int = 100) -> SiteJoining:
    own = Gain(value, error, patients - 1.0, patients)
    choice = Choice("own", 0.8, 20, 0.7, Gain(0.0, 0.0, 1.0, patients))
    return SiteJoining(name, patients, False, judge_joining(own, 0.02), own, UNKNOWN, choice)


def found(*sites: SiteJoining) -> WorthJoining:
    return WorthJoining(study(), sites, {})


def test_the_headline_names_the_hospitals_of_each_word() -> None:
    mixed = found(site("a", 0.1, 0.01), site("b", -0.1, 0.01), site("c", 0.0, 0.1))
    assert headline(mixed) == (
        "Joining is worth it for a; it is not worth it for b; it cannot be judged for c."
    )
    assert headline(found(site("a", 0.1, 0.01))) == "Joining is worth it for a."
    both = found(site("a", 0.1, 0.01), site("b", 0.1, 0.01))
    assert headline(both) == "Joining is worth it for all 2 hospitals."
    nobody = found(site("a", 0.0, 0.1), site("b", 0.0, 0.1))
    assert headline(nobody).startswith("For none of the hospitals can it be told")


def test_a_loss_beyond_the_margin_is_said_as_certain_possible_or_ruled_out() -> None:
    assert "ruled out at every hospital" in losses(found(site("a", 0.1, 0.01)))
    assert "not ruled out at b" in losses(found(site("a", 0.1, 0.01), site("b", 0.0, 0.1)))
    certain = losses(found(site("a", -0.1, 0.01), site("b", 0.0, 0.1)))
    assert certain == "The federated model loses more than 0.02 AUROC for certain at a."


@pytest.mark.parametrize(
    ("value", "error", "patients", "words"),
    [
        (0.1, 0.01, 100, "yes: it gains 0.100 AUROC over its own model, more than chance explains"),
        (0.03, 0.025, 100, "0.030 AUROC (90 % interval −0.012 to +0.072), and a loss of 0.02 is"),
        (-0.1, 0.01, 100, "no: it loses 0.100 AUROC against its own model"),
        (
            -0.01,
            0.012,
            100,
            "no: it lost 0.010 AUROC (90 % interval −0.030 to +0.010), and a gain of",
        ),
        (0.02, 0.05, 45, "with 45 test patients neither a loss nor a gain of 0.02 is ruled out"),
        (0.5, 0.0, 1, "cannot be told: 1 test patient cannot show how patients differ."),
    ],
)
def test_a_reason_is_one_sentence_with_its_numbers(
    value: float, error: float, patients: int, words: str
) -> None:
    assert words in reason(site("a", value, error, patients), study())


def test_no_reason_says_chance_of_a_gain_that_another_section_may_call_certain() -> None:
    for error in (0.001, 0.012, 0.025, 0.2):
        for value in (-0.1, -0.01, 0.0, 0.01, 0.03, 0.1):
            assert "may be chance" not in reason(site("a", value, error, 100), study())


def test_what_it_would_take_is_a_round_number() -> None:
    said = reason(site("a", 0.02, 0.05, 45), study())
    assert re.search(r"it would take about [1-9][0-9]0\.", said)
    hopeless = reason(site("a", 0.0, 5.0, 45), study())
    assert "more patients than there are would not tell" in hopeless


@pytest.mark.parametrize("why", Reason.__args__)
def test_every_reason_has_words(why: Reason) -> None:
    one = site("a", 0.0, 0.1)
    joining = Joining("no", why, part="melanoma")
    told = SiteJoining("a", 100, True, joining, one.own, None, one.choice)
    assert reason(told, study()).startswith("no: ")
    assert "all its test patients are of one class" in reason(told, study())


def test_a_gain_is_printed_with_its_bounds() -> None:
    cell = gain_cell(Gain(0.1, 0.01, 99, 100), "auroc")
    assert (cell.text, cell.note) == ("+0.100", "+0.083 to +0.117")
    assert gain_cell(UNKNOWN, "auroc").text == "–"
    assert gain_cell(Gain(0.1, float("nan"), 0, 1), "auroc").text == "+0.100"


def contents(folder: Path) -> RunContents:
    facts = RunFacts("0.1.0", ("wardround",), "d", 0, "today", "finished")
    return RunContents(folder, facts, study(), "", (), (), (), None)


def test_a_run_without_predictions_has_no_section(tmp_path: Path) -> None:
    assert worth_joining_section(contents(tmp_path)) is None


def test_a_damaged_table_of_contributions_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.simulations.report.sections import worth_joining

    monkeypatch.setattr(worth_joining, "judge_sites", lambda *_: (site("a", 0.1, 0.01),))
    (tmp_path / "contributions.csv").write_text("site,rounds\na,many\n")
    with pytest.raises(InputError, match=r"contributions\.csv is damaged"):
        read_worth_joining(contents(tmp_path))
