import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from wardround.common.errors import InputError
from wardround.common.html.charts.small import GAIN_WIDTH
from wardround.common.statistics.delong import hanley_mcneil_error
from wardround.common.statistics.interval import proportion_error, t_interval
from wardround.simulations.evidence.intervals.sampling_error import PatientCounts, value_error
from wardround.simulations.report.charts.gain_bars import draw_gain_bars
from wardround.simulations.report.charts.pictures import draw_samples
from wardround.simulations.report.charts.tables import tabulate_measures, tabulate_models_by_site
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.missing import why_missing
from wardround.simulations.report.samples import Samples, read_samples
from wardround.simulations.report.verdict import (
    SiteVerdict,
    Verdict,
    gain_over,
    interval_of,
    judge,
    judge_gain,
)
from wardround.simulations.report.wording import (
    Headline,
    compose_headline,
    explain_margin,
    number,
    signed,
)
from wardround.simulations.run_files.folder import (
    FEDERATED,
    PAIRED,
    POOLED,
    MetricRow,
    RunFacts,
    SplitRow,
    Status,
    local_model,
)


def kept(
    model: str, site: str, value: float, metric: str = "auroc", error: float = 0.0
) -> MetricRow:
    return MetricRow(model, -1, site, "test", metric, "", value, 100, 0.0, error)


def run(
    rows: list[MetricRow], split: tuple[SplitRow, ...] = (), status: Status = "finished"
) -> RunContents:
    facts = RunFacts("0.1.0", ("wardround",), "d", 0, "today", status)
    return RunContents(Path("run"), facts, None, "", tuple(rows), (), split, None)


def headline(*gains: float, metric: str = "dice", error: float = 0.002) -> Headline:
    rows = []
    for index, gain in enumerate(gains):
        site = f"hospital-{index + 1}"
        rows.append(kept(local_model(site), site, 0.8, metric, error))
        rows.append(kept(FEDERATED, site, 0.8 + gain, metric, error))
        rows.append(kept(POOLED, site, 0.9, metric, error))
    return compose_headline(run(rows), judge(rows, (), metric))


def test_a_class_that_the_model_never_finds_is_said_at_the_top() -> None:
    rows = [
        kept(local_model("a"), "a", 0.8),
        kept(FEDERATED, "a", 0.8),
        *(
            MetricRow(FEDERATED, -1, "all sites", "test", "f1", name, value, support)
            for name, value, support in (("akiec", 0.0, 9), ("nv", 0.9, 80), ("vasc", 0.0, 0))
        ),
    ]
    details = compose_headline(run(rows), judge(rows, (), "auroc")).details
    assert "The federated model never finds akiec, though test patients have it." in details
    alone = [row for row in rows if row.model == FEDERATED]
    assert any(
        "never finds akiec" in line
        for line in compose_headline(run(alone), judge(alone, (), "auroc")).details
    )


@pytest.mark.parametrize(("unit", "title"), [("mm", "HD95 in mm"), ("pixels", "HD95 in pixels")])
def test_distances_are_in_the_unit_that_the_images_have(unit: str, title: str) -> None:
    models = (FEDERATED, local_model("a"))
    contents = run([kept(model, "a", 4.0, "hd95") for model in models])
    contents = replace(contents, facts=replace(contents.facts, length_unit=unit))
    table = tabulate_measures(contents)
    assert table is not None
    assert [heading for heading, _ in table.rows] == [f"{title}, lower is better"]


# --- Sampling errors ----------------------------------------------------------------------


def test_the_auroc_error_is_that_of_hanley_and_mcneils_example() -> None:
    # Radiology 143, 1982: 51 abnormal and 58 normal cases, area 0.893, standard error 0.032.
    assert hanley_mcneil_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.0006)


def test_the_auroc_error_agrees_with_repeated_draws_of_patients() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat([1, 0], [40, 60])
    areas = [roc_auc_score(truth, generator.normal(1.2 * truth)) for _ in range(500)]
    assert hanley_mcneil_error(float(np.mean(areas)), 40, 60) == pytest.approx(
        np.std(areas), rel=0.15
    )


def test_the_error_of_a_mean_auroc_over_seven_classes_agrees_with_repeated_draws() -> None:
    generator = np.random.default_rng(1)
    counts = (8, 12, 27, 6, 27, 150, 10)
    truth = np.repeat(np.arange(7), counts)
    areas = []
    for _ in range(120):
        scores = generator.normal(size=(len(truth), 7))
        scores[np.arange(len(truth)), truth] += 1.3
        areas.append(np.mean([roc_auc_score(truth == k, scores[:, k]) for k in range(7)]))
    row = kept(FEDERATED, "a", float(np.mean(areas)))
    claimed = value_error(row, PatientCounts(len(truth), counts))
    assert 0.9 * np.std(areas) < claimed < 1.5 * np.std(areas)


def test_a_proportion_of_one_is_not_known_without_error() -> None:
    # By hand: centre (10 + 1.9207) / 13.8415 = 0.8612, error sqrt(0.8612 x 0.1388 / 10).
    assert proportion_error(1.0, 10) == pytest.approx(0.1093, abs=1e-4)


def test_a_proportion_of_many_has_the_binomial_error() -> None:
    assert proportion_error(0.7, 100_000) == pytest.approx(math.sqrt(0.21 / 1e5), rel=1e-3)


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_the_auroc_error_is_positive_for_every_area(
    area: float, positives: int, negatives: int
) -> None:
    assert 0 < hanley_mcneil_error(area, positives, negatives) <= 0.5


def test_no_patients_give_no_error() -> None:
    assert math.isnan(hanley_mcneil_error(0.9, 0, 10))
    assert math.isnan(proportion_error(0.9, 0))


def test_what_is_not_known_is_the_largest_that_can_be_and_never_no_number() -> None:
    assert value_error(kept(FEDERATED, "a", 0.9), PatientCounts(10, (10, 0))) == 0.5
    assert value_error(kept(FEDERATED, "a", 0.9, "dice"), PatientCounts(10)) == 0.5
    assert math.isnan(value_error(kept(FEDERATED, "a", 0.9, "hd95"), PatientCounts(10)))


def test_a_patient_of_both_classes_does_not_take_the_error_of_an_auroc_away() -> None:
    error = value_error(kept(FEDERATED, "a", 0.9), PatientCounts(20, (20, 7)))
    assert error == hanley_mcneil_error(0.9, 7, 20)


def test_slices_of_one_patient_count_once() -> None:
    row = kept(FEDERATED, "a", 0.9, "dice", error=0.01)
    assert value_error(row, PatientCounts(5, images_each=16)) == pytest.approx(0.04)


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "f1", "auroc", "dice"])
def test_a_site_with_one_test_patient_never_gains(metric: str) -> None:
    rows = [
        kept(local_model("a"), "a", 0.0, metric, 0.001),
        kept(FEDERATED, "a", 1.0, metric, 0.001),
    ]
    split = (SplitRow("a", "test", "", 16, 1), SplitRow("a", "test", "x", 16, 1))
    verdict = judge(rows, split, metric)
    (site,) = verdict.sites
    assert site.outcome == "cannot be told"
    assert not site.has_interval, "the largest error that there can be is no interval"
    assert not verdict.mean.has_interval


def test_a_comparison_of_each_patient_goes_before_two_separate_errors() -> None:
    rows = [
        kept(local_model("a"), "a", 0.8, "accuracy"),
        kept(FEDERATED, "a", 0.9, "accuracy"),
        MetricRow(local_model("a"), -1, "a", PAIRED, "accuracy", "", 0.1, 100, 0.0, 0.03),
    ]
    verdict = judge(rows, (), "accuracy")
    assert verdict.sites[0].outcome == "gained"
    assert verdict.paired
    assert not judge(rows[:2], (), "accuracy").paired


def test_a_class_that_is_not_tested_is_not_a_site_without_test_patients() -> None:
    row = replace(kept(FEDERATED, "a", math.nan), support=0)
    contents = run([row], (SplitRow("a", "test", "", 7, 7), SplitRow("a", "test", "x", 7, 7)))
    assert why_missing(contents, row, "a", "") == "needs two classes"
    assert why_missing(run([row]), row, "a", "") == "no test patients"


def test_a_measured_error_goes_before_a_formula() -> None:
    row = kept(FEDERATED, "a", 0.9, error=0.013)
    assert value_error(row, PatientCounts(100, (50, 50))) == 0.013


def test_the_error_counts_patients_and_not_images() -> None:
    row = replace(kept(FEDERATED, "a", 0.8, "accuracy"), support=1000)
    assert value_error(row, PatientCounts(50)) == proportion_error(0.8, 50)


# --- The verdict ----------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "gain"), [("auroc", 0.2), ("hd95", -0.2), ("loss", -0.2)])
def test_the_gain_knows_the_direction_of_the_metric(metric: str, gain: float) -> None:
    assert gain_over(0.5, 0.7, metric) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("gain", "margin", "word"),
    [
        (0.03, 0.02, "gained"),
        (-0.03, 0.02, "lost"),
        (0.02, 0.02, "no clear difference"),
        (0.03, 0.03, "cannot be told"),
        (-0.009, math.nan, "cannot be told"),
        (0.5, math.nan, "cannot be told"),
        (math.nan, 0.02, "not compared"),
    ],
)
def test_a_gain_is_judged_by_its_margin(gain: float, margin: float, word: str) -> None:
    assert judge_gain(gain, margin) == word


def test_the_margin_adds_the_binning_bound_of_both_models() -> None:
    rows = [
        replace(kept(local_model("a"), "a", 0.8, error=0.03), error_bound=0.001),
        replace(kept(FEDERATED, "a", 0.9, error=0.04), error_bound=0.002),
    ]
    (site,) = judge(rows, (), "auroc").sites
    assert site.margin == pytest.approx(1.96 * 0.05 + 0.003, abs=1e-5)


def test_no_interval_reaches_beyond_the_gains_that_there_can_be() -> None:
    rows = [kept(local_model("a"), "a", 0.8, error=3.0), kept(FEDERATED, "a", 0.9, error=4.0)]
    (site,) = judge(rows, (), "auroc").sites
    assert site.margin == pytest.approx(1.1)  # from -1 to 1.2: nothing is left out
    far = [
        kept(local_model("a"), "a", 20.0, metric="hd95", error=300.0),
        kept(FEDERATED, "a", 10.0, metric="hd95", error=400.0),
    ]
    (site,) = judge(far, (), "hd95").sites
    assert site.margin > 900


def test_only_the_kept_models_test_values_count() -> None:
    rows = [
        kept(local_model("a"), "a", 0.8),
        replace(kept(FEDERATED, "a", 0.1), round=5, split="validation"),
        kept(FEDERATED, "a", 0.9),
        kept(local_model("b"), "a", 0.2),
    ]
    (site,) = judge(rows, (), "auroc").sites
    assert (site.own, site.federated) == (0.8, 0.9)


def test_the_mean_counts_every_hospital_the_same_and_leaves_out_the_uncompared() -> None:
    sites = (
        SiteVerdict("a", 0.8, 0.9, 0.95, 0.1, 0.03),
        SiteVerdict("b", 0.6, 0.9, 0.95, 0.3, 0.04),
        SiteVerdict("c", math.nan, 0.1, 0.1, math.nan, math.nan),
    )
    mean = Verdict("auroc", sites).mean
    assert (mean.own, mean.federated) == pytest.approx((0.7, 0.9))
    assert (mean.gain, mean.error) == pytest.approx((0.2, 0.025))


def test_a_site_without_the_class_is_not_compared() -> None:
    rows = [kept(local_model("a"), "a", math.nan), kept(FEDERATED, "a", 0.9)]
    (site,) = judge(rows, (), "auroc").sites
    assert site.outcome == "not compared"


# --- The words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "sentence", "tone"),
    [
        ((0.1, 0.1), "All 2 hospitals gained from training together.", "good"),
        (
            (0.1, 0.1, -0.012),
            "2 of 3 hospitals gained from training together; hospital-3 lost 0.012 Dice.",
            "neutral",
        ),
        (
            (0.1, 0.0, 0.0),
            "1 of 3 hospitals gained from training together; "
            "hospital-2 and hospital-3 show no clear difference.",
            "good",
        ),
        (
            (-0.1, 0.0),
            "No hospital clearly gained from training together: hospital-1 lost 0.100 Dice; "
            "hospital-2 shows no clear difference.",
            "bad",
        ),
        (
            (0.001, -0.001),
            "None of the 2 hospitals clearly gained or lost from training together: "
            "every difference is within the sampling error.",
            "neutral",
        ),
        (
            (0.005, 0.005, 0.005),
            "On average the 3 hospitals gained from training together, but no single "
            "hospital's difference is larger than its sampling error.",
            "good",
        ),
        ((-0.1,), "Training together did not help: hospital-1 lost 0.100 Dice.", "bad"),
    ],
)
def test_the_headline_says_what_the_numbers_say(
    gains: tuple[float, ...], sentence: str, tone: str
) -> None:
    words = headline(*gains)
    assert (words.sentence, words.tone) == (sentence, tone)


def test_the_headline_of_a_loss_turns_the_direction() -> None:
    words = headline(0.1, metric="loss")
    assert words.sentence == ("Training together did not help: hospital-1 is worse by 0.100 loss.")
    assert "lower is better" in words.details[0]


def test_an_unknown_sampling_error_is_said_and_not_invented() -> None:
    words = headline(0.1, 0.2, metric="hd95", error=0.0)
    assert "its sampling error is not known" in words.details[1]
    assert "cannot be said" in words.sentence
    assert words.tone == "neutral"


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_has_no_verdict_but_its_last_number(status: Status) -> None:
    rows = [MetricRow(FEDERATED, 3, "all sites", "validation", "auroc", "", 0.75, 40)]
    contents = run(rows, status=status)
    words = compose_headline(contents, judge(rows, (), "auroc"))
    assert "round 3" in words.sentence
    assert "0.750 after round 3" in words.details[0]
    assert words.tone == "neutral"


def test_numbers_are_printed_with_a_true_minus_and_a_dash_for_nothing() -> None:
    assert [number(-0.5), number(math.nan), number(3.14159, "hd95")] == ["−0.500", "–", "3.14"]
    assert [signed(0.5), signed(-0.5), signed(math.nan)] == ["+0.500", "−0.500", "–"]


def test_gain_bars_share_one_scale_and_stay_inside() -> None:
    sites = [
        SiteVerdict("a", 0, 0, 0, 0.2, 0.05),
        SiteVerdict("b", 0, 0, 0, -0.1, math.nan),
        SiteVerdict("c", 0, 0, 0, math.nan, math.nan),
    ]
    first, second, third = draw_gain_bars(sites, "auroc")
    assert third == ""
    (right, long), (left, short) = _bar(first), _bar(second)
    assert right == GAIN_WIDTH / 2
    assert left + short == pytest.approx(GAIN_WIDTH / 2, abs=0.1)
    assert long == pytest.approx(2 * short, abs=0.2)
    assert float(re.findall(r"H([\d.]+)", first)[-1]) < GAIN_WIDTH
    assert 'class="interval"' not in second
    assert 'aria-label="gain +0.200"' in first


def _bar(drawn: str) -> tuple[float, float]:
    """Return where a bar begins and how long it is."""
    (found,) = re.findall(r'x="([\d.]+)" y="4" width="([\d.]+)"', drawn)
    return float(found[0]), float(found[1])


# --- Samples ------------------------------------------------------------------------------------


def _labelled(count: int, sites: list[str]) -> Samples:
    labels = np.arange(count) % 2
    images = np.zeros((count, 8, 6), np.float32)
    return Samples(images, labels, 1 - labels, np.array(sites), np.full(count, np.nan))


def test_samples_come_back_as_written(tmp_path: Path) -> None:
    samples = _labelled(2, ["a", "b"])
    np.savez_compressed(tmp_path / "samples.npz", **asdict(samples))
    back = read_samples(tmp_path / "samples.npz")
    assert back is not None
    assert list(back.site) == ["a", "b"]
    assert back.images.shape == (2, 8, 6)
    assert read_samples(tmp_path / "none.npz") is None


def test_samples_that_do_not_fit_together_are_refused() -> None:
    samples = _labelled(2, ["a", "b"])
    with pytest.raises(InputError, match="must hold 2 items"):
        replace(samples, site=np.array(["a"]))
    with pytest.raises(InputError, match="truth has shape"):
        replace(samples, prediction=np.zeros((2, 3), int))
    with pytest.raises(InputError, match="images has shape"):
        replace(samples, images=np.zeros((2, 8), np.float32))


def test_pickled_samples_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    arrays = {name: np.zeros(1) for name in ("images", "truth", "prediction", "score")}
    np.savez(path, site=np.array([{"a": 1}], dtype=object), **arrays)
    with pytest.raises(InputError, match="cannot be read as samples"):
        read_samples(path)


def test_every_site_has_its_turn_among_the_pictures() -> None:
    samples = _labelled(40, ["a"] * 30 + ["b"] * 10)
    pictures = draw_samples(samples, ("no", "yes"))
    assert [picture.site for picture in pictures] == ["a"] * 6 + ["b"] * 6
    assert pictures[0].caption == "truth: no; model: yes"
    assert pictures[0].verdict == "wrong"


def test_several_classes_of_one_patient_are_all_named() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    samples = Samples(
        np.zeros((2, 8, 8), np.float32), labels, labels, np.array(["a", "a"]), np.ones(2)
    )
    captions = [picture.caption for picture in draw_samples(samples, ("x", "y", "z"))]
    assert captions[0].startswith("truth: x, z; model: x, z")
    assert captions[1].startswith("truth: none; model: none")


def test_the_place_where_all_data_was_pooled_is_no_hospital() -> None:
    rows = [kept(FEDERATED, "a", 0.9), kept(POOLED, "everybody", 0.9), kept(FEDERATED, "b", 0.9)]
    assert [site.site for site in judge(rows, (), "auroc").sites] == ["a", "b"]


# --- Too few patients, several hospitals ----------------------------------------------------------


def paired(site: str, gain: float, error: float, patients: int) -> list[MetricRow]:
    return [
        kept(local_model(site), site, 0.8, "dice"),
        kept(FEDERATED, site, 0.8 + gain, "dice"),
        MetricRow(local_model(site), -1, site, PAIRED, "dice", "", gain, patients, 0.0, error),
    ]


def test_too_few_patients_are_said_with_how_many_it_would_take() -> None:
    rows = paired("a", 0.05, 0.04, 10)
    verdict = judge(rows, (), "dice")
    (site,) = verdict.sites
    assert site.outcome == "cannot be told"
    # By hand: 10 x ((1.96 + 0.8416) x 0.04 / 0.05)² = 50.2 patients.
    assert site.needed == 51
    words = compose_headline(run(rows), verdict)
    assert words.sentence == "Whether a gained from training together cannot be told."
    wanted = "a: cannot be told with 10 test patients; it would take about 51."
    assert wanted in words.details


def test_one_test_patient_takes_the_others_spread_for_how_many_it_would_take() -> None:
    rows = [*paired("a", 0.1, 0.01, 25), *paired("b", 0.2, 0.0, 1)]
    rows = [row for row in rows if (row.site, row.split) != ("b", PAIRED)]
    split = (SplitRow("b", "test", "", 6, 1),)
    second, first = judge(rows, split, "dice").sites  # in the order of the split
    assert (first.outcome, second.outcome) == ("gained", "cannot be told")
    words = compose_headline(run(rows, split), judge(rows, split, "dice"))
    assert words.sentence == (
        "1 of 2 hospitals gained from training together; for b it cannot be told."
    )
    assert any("cannot be told with 1 test patient; it would take" in d for d in words.details)


def test_several_hospitals_are_corrected_and_the_report_says_how() -> None:
    # p = .026 is a gain of one hospital alone, and not of one of four.
    alone = judge(paired("a", 0.05, 0.02, 12), (), "dice")
    assert alone.sites[0].outcome == "gained"
    rows = [
        row
        for index in range(4)
        for row in paired(f"h{index}", 0.05 if index == 0 else 0.0, 0.02, 12)
    ]
    together = judge(rows, (), "dice")
    assert together.sites[0].outcome == "cannot be told"
    assert together.sites[0].margin > alone.sites[0].margin
    assert "Holm's method" in explain_margin(together)
    assert "98.75%" in explain_margin(together)
    assert "Holm" not in explain_margin(alone)


def test_a_test_number_of_a_table_has_its_interval_below_it() -> None:
    rows = paired("a", 0.1, 0.01, 25)
    known = {
        (model, "a", "dice", ""): t_interval(value, 0.01, 24, 25)
        for model, value in ((local_model("a"), 0.8), (FEDERATED, 0.9))
    }
    contents = replace(run(rows), intervals=known)
    table = tabulate_models_by_site(contents)
    assert table is not None
    notes = [cells[0].note for _, cells in table.rows]
    assert notes == ["0.879 to 0.921", "0.779 to 0.821"]
    measures = tabulate_measures(contents)
    assert measures is not None
    assert all(" to " in cell.note for cell in measures.rows[0][1][:2])
    assert "whose unit is the patient" in measures.caption


def test_an_interval_of_another_value_is_not_taken() -> None:
    row = kept(FEDERATED, "a", 0.9, "dice", error=0.01)
    other = {(FEDERATED, "a", "dice", ""): t_interval(0.7, 0.01, 24, 25)}
    split = (SplitRow("a", "test", "", 20, 20),)
    interval = interval_of(row, split, other)
    assert interval.value == 0.9
    assert interval.is_known
    assert not interval_of(row, (), {}).is_known


def test_a_run_that_lost_a_site_says_so_in_its_first_line() -> None:
    rows = [kept(local_model("a"), "a", 0.8), kept(FEDERATED, "a", 0.9), kept(POOLED, "a", 0.9)]
    rows.append(replace(kept(FEDERATED, "a", 0.7), round=4, split="validation"))
    whole = run(rows)
    lost = replace(whole, facts=replace(whole.facts, missed={"b": 4, "c": 1}))
    words = compose_headline(lost, judge(rows, (), "auroc")).sentence
    assert words.startswith("Trained without b and with rounds of 4 missed by c (1).")
    assert "Trained" not in compose_headline(whole, judge(rows, (), "auroc")).sentence
