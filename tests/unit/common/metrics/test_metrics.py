import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    hamming_loss,
    roc_auc_score,
)
from tests.unit.common.metrics.test_regression import age_study
from tests.unit.common.metrics.test_survival import death_study

from wardround.client.tasks.classification import count_classification
from wardround.client.tasks.segmentation import count_segmentation
from wardround.common.errors import WardroundError
from wardround.common.metrics.records import (
    from_arrays,
    sums_from_record,
    sums_to_record,
    to_arrays,
)
from wardround.common.metrics.sums import MetricSums, empty_sums, merge, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study


def study_of(task, classes, multi_label=False, **evaluation) -> Study:
    network = "small-cnn" if task == "classification" else "unet"
    return parse_study(
        {
            "study": {"name": "test", "task": task},
            "data": {
                "classes": [f"class {index}" for index in range(classes)],
                "multi_label": multi_label,
                "size": [16, 16],
            },
            "model": {"network": network},
            "evaluation": evaluation,
        }
    )


BINARY = study_of("classification", 2)
FOUR = study_of("classification", 4)
LABELS = study_of("classification", 3, multi_label=True)
ORGANS = study_of("segmentation", 3)
STUDIES = (BINARY, FOUR, LABELS, ORGANS)


def draw(study, count, seed, decimals=1):
    """Return logits and targets of an imperfect classifier; few decimals tie some scores."""
    rng = np.random.default_rng(seed)
    classes = study.class_count
    if study.data.multi_label:
        truth = rng.integers(0, 2, (count, classes))
        signal = truth
    else:
        truth = rng.integers(0, classes, count)
        signal = np.eye(classes)[truth]
    logits = np.round(signal + rng.normal(size=(count, classes)), decimals)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(truth)


def measure(study, count, seed, surfaces=True) -> MetricSums:
    if study.study.task == "classification":
        counted = count_classification(*draw(study, count, seed), study)
        return MetricSums(count, 0.25 * seed, counted)
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, study.class_count, (2, count, 8, 8), generator=generator)
    spacings = [(1.0, 1.0)] * count if surfaces else None
    measured = count_segmentation(masks[0], masks[1], study, spacings)
    return MetricSums(count, 0.25 * seed, measured)


def values_of(sums, study):
    return {(value.metric, value.class_name): value for value in summarise(sums, study)}


def assert_same(a: MetricSums, b: MetricSums) -> None:
    left, right = to_arrays(a), to_arrays(b)
    assert left.keys() == right.keys()
    for name in left:
        assert_allclose(left[name], right[name], rtol=1e-12, err_msg=name)


def test_every_metric_of_the_catalogue_can_be_summarised():
    pretraining = parse_study(
        {
            "study": {"name": "unlabelled", "task": "pretraining"},
            "data": {"size": [16, 16]},
            "model": {"network": "small-cnn"},
        }
    )
    boxes = FOUR.model_copy(update={"study": FOUR.study.model_copy(update={"task": "detection"})})
    studies = (*STUDIES, boxes, pretraining, age_study(), death_study())
    found = {
        value.metric for study in studies for value in summarise(empty_sums(study, True), study)
    }

    assert found == set(METRICS)


def test_binary_metrics_of_one_site_equal_scikit_learn():
    logits, truth = draw(BINARY, 300, seed=1)
    score = torch.softmax(logits.double(), dim=1)[:, 1].numpy()
    sums = MetricSums(300, 90.0, count_classification(logits, truth, BINARY))

    values = values_of(sums, BINARY)

    predicted = logits.argmax(dim=1)
    assert values["loss", ""].value == pytest.approx(0.3)
    assert values["accuracy", ""].value == pytest.approx(accuracy_score(truth, predicted))
    assert values["balanced-accuracy", ""].value == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )
    assert values["f1", ""].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert values["auroc", ""].value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert values["auroc", ""].error_bound == 0.0
    assert values["auroc", ""].support == 300


def test_multi_class_metrics_of_one_site_equal_scikit_learn():
    logits, truth = draw(FOUR, 200, seed=2)
    scores = torch.softmax(logits.double(), dim=1).numpy()
    sums = MetricSums(200, 1.0, count_classification(logits, truth, FOUR))

    values = values_of(sums, FOUR)

    predicted = logits.argmax(dim=1)
    expected = roc_auc_score(truth, scores, multi_class="ovr", average=None)
    assert values["auroc", ""].value == pytest.approx(expected.mean(), abs=1e-12)
    for index, per_class in enumerate(expected):
        assert values["auroc", f"class {index}"].value == pytest.approx(per_class, abs=1e-12)
    assert values["balanced-accuracy", ""].value == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )
    per_class_f1 = f1_score(truth, predicted, average=None)
    assert values["f1", "class 2"].value == pytest.approx(per_class_f1[2])
    assert values["f1", "class 2"].support == int((truth == 2).sum())


def test_multi_label_metrics_of_one_site_equal_scikit_learn():
    logits, truth = draw(LABELS, 200, seed=3)
    scores = torch.sigmoid(logits.double()).numpy()
    predicted = (scores >= 0.5).astype(int)
    sums = MetricSums(200, 1.0, count_classification(logits, truth, LABELS))

    values = values_of(sums, LABELS)

    balanced = [balanced_accuracy_score(truth[:, k], predicted[:, k]) for k in range(3)]
    assert values["accuracy", ""].value == pytest.approx(1 - hamming_loss(truth, predicted))
    assert values["balanced-accuracy", ""].value == pytest.approx(np.mean(balanced))
    assert values["f1", ""].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert values["auroc", ""].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_a_class_that_does_not_occur_is_left_out_of_the_means():
    truth = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = torch.eye(4)[[0, 1, 1, 1, 2, 3]]
    sums = MetricSums(6, 1.0, count_classification(logits, truth, FOUR))

    values = values_of(sums, FOUR)

    predicted = logits.argmax(dim=1)
    expected = f1_score(truth, predicted, average="macro", labels=[0, 1, 2])
    assert values["f1", ""].value == pytest.approx(expected)
    assert values["balanced-accuracy", ""].value == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert math.isnan(values["auroc", "class 3"].value)
    assert values["auroc", "class 3"].support == 0
    assert math.isnan(values["f1", "class 3"].value)
    assert values["auroc", ""].support == 6


@pytest.mark.parametrize("study", STUDIES)
def test_no_examinations_give_no_number(study):
    for value in summarise(empty_sums(study, surfaces=True), study):
        assert math.isnan(value.value)
        assert value.support == 0


@pytest.mark.parametrize("bins", [10, 100, 1000])
@pytest.mark.parametrize("classes", [2, 4])
def test_merged_auroc_is_within_its_stated_bound_of_scikit_learn(bins, classes):
    study = study_of("classification", classes, score_bins=bins)
    parts = [draw(study, 150, seed, decimals=6) for seed in range(3)]
    sums = empty_sums(study)
    for logits, truth in parts:
        counted = count_classification(logits, truth, study)
        sums = merge(sums, MetricSums(150, 1.0, counted))
    logits, truth = (torch.cat(column) for column in zip(*parts, strict=True))
    scores = torch.softmax(logits.double(), dim=1).numpy()
    expected = roc_auc_score(
        truth, scores[:, 1] if classes == 2 else scores, multi_class="ovr", average="macro"
    )

    merged = values_of(sums, study)["auroc", ""]

    assert 0 < merged.error_bound < 6 / bins  # each bin holds a small share of either side
    assert abs(merged.value - expected) <= merged.error_bound
    assert merged.value != expected


def test_merged_counts_equal_pooled_counts_exactly():
    parts = [draw(FOUR, 60, seed) for seed in range(4)]
    sums = empty_sums(FOUR)
    for logits, truth in parts:
        counted = count_classification(logits, truth, FOUR)
        sums = merge(sums, MetricSums(60, 1.0, counted))
    logits, truth = (torch.cat(column) for column in zip(*parts, strict=True))

    values = values_of(sums, FOUR)

    predicted = logits.argmax(dim=1)
    assert values["accuracy", ""].value == accuracy_score(truth, predicted)
    assert values["f1", ""].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert values["accuracy", ""].support == 240


def test_the_error_bound_is_the_tied_share_of_pairs():
    study = study_of("classification", 2, score_bins=10)
    scores = torch.tensor([0.61, 0.68, 0.65, 0.05])  # three in one bin: 2 positives, 1 negative
    logits = torch.stack([torch.log(1 - scores), torch.log(scores)], dim=1)
    counted = count_classification(logits, torch.tensor([1, 1, 0, 0]), study)
    one = MetricSums(4, 0.0, counted)

    value = values_of(merge(one, one), study)["auroc", ""]

    # Doubled: P = N = 4; in the bin p = 4, n = 2; in the low bin n = 2.
    assert value.error_bound == pytest.approx(4 * 2 / (2 * 4 * 4))
    assert value.value == pytest.approx((4 * 2 + 4 * 2 / 2) / 16)


sites = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=3, max_size=3)


@settings(max_examples=30, deadline=None)
@given(
    sites=sites,
    which=st.integers(0, len(STUDIES) - 1),
    surfaces=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_merging_depends_on_no_order(sites, which, surfaces):
    study = STUDIES[which]
    a, b, c = (
        measure(study, count, seed, surface) if count else empty_sums(study, surface)
        for (count, seed), surface in zip(sites, surfaces, strict=True)
    )

    assert_same(merge(a, b), merge(b, a))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))


@pytest.mark.parametrize("study", STUDIES)
def test_merging_with_nothing_changes_nothing(study):
    sums = measure(study, 20, seed=5)

    assert_same(merge(sums, empty_sums(study)), sums)
    assert_same(merge(empty_sums(study), sums), sums)


def test_surfaces_that_only_some_sites_measured_are_dropped():
    with_surfaces = measure(ORGANS, 2, seed=1)
    masks = torch.zeros((1, 8, 8), dtype=torch.int64)
    without = MetricSums(1, 0.0, count_segmentation(masks, masks, ORGANS, None))

    merged = merge(with_surfaces, without)

    assert "hd95" in {value.metric for value in summarise(with_surfaces, ORGANS)}
    assert "hd95" not in {value.metric for value in summarise(merged, ORGANS)}


def test_sums_of_different_studies_are_not_merged():
    coarse = study_of("classification", 2, score_bins=10)
    for other in (FOUR, coarse, ORGANS):
        with pytest.raises(WardroundError, match="cannot be merged"):
            merge(measure(BINARY, 5, 1), measure(other, 5, 1))


@pytest.mark.parametrize("study", STUDIES)
def test_sums_survive_the_message(study):
    for sums in (measure(study, 7, 3), empty_sums(study), empty_sums(study, surfaces=True)):
        assert_same(sums_from_record(sums_to_record(sums), study), sums)
        again = from_arrays(to_arrays(sums), study)
        expected, given = summarise(sums, study), summarise(again, study)
        assert [str(value) for value in given] == [str(value) for value in expected]


def _spoiled(study, name, value):
    arrays = to_arrays(measure(study, 6, 3))
    arrays[name] = value(arrays[name].astype(float))
    return arrays


@pytest.mark.parametrize(
    ("study", "name", "value", "reason"),
    [
        (BINARY, "loss", lambda a: a * math.nan, "not a finite number"),
        (BINARY, "confusion", lambda a: a[:1], "has shape"),
        (BINARY, "positives", lambda a: a[:, :7], "has shape"),
        (BINARY, "confusion", lambda a: -a, "is negative"),
        (BINARY, "confusion", lambda a: a + 0.5, "is not a count"),
        (BINARY, "confusion", lambda a: a + 1, "does not count the 6 examinations"),
        (BINARY, "examinations", lambda a: a + 1, "does not count the 7 examinations"),
        (BINARY, "positives", lambda a: a * 2, "do not count the examinations"),
        (BINARY, "ordered_pairs", lambda a: a + 36, "more than there are pairs"),
        (BINARY, "confusion", lambda a: a.astype(str), "is of type"),
        (LABELS, "negatives", lambda a: a * 0, "do not count the examinations"),
        (ORGANS, "dice", lambda a: a + 7, "mean above 1"),
        (ORGANS, "dice", lambda a: a * math.inf, "not a finite number"),
        (ORGANS, "dice_cases", lambda a: a + 7, "more than the 6 examinations"),
        (ORGANS, "hd95_cases", lambda a: a * 0, "over no case"),
        (ORGANS, "surface_dice", lambda a: a + 7, "mean above 1"),
        (ORGANS, "true_positives", lambda a: a - 1e6, "is negative"),
    ],
)
def test_sums_that_cannot_be_true_are_refused(study, name, value, reason):
    with pytest.raises(WardroundError, match=reason):
        from_arrays(_spoiled(study, name, value), study)


def test_a_missing_or_unknown_array_is_refused():
    arrays = to_arrays(measure(BINARY, 6, 3))

    with pytest.raises(WardroundError, match="pixels"):
        from_arrays({**arrays, "pixels": np.zeros(3)}, BINARY)
    del arrays["confusion"]
    with pytest.raises(WardroundError, match="confusion"):
        from_arrays(arrays, BINARY)


def test_the_standard_error_of_a_mean_dice_is_that_of_the_cases() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(3, (9, 8, 8), generator=generator)
    found = torch.where(torch.rand(truth.shape, generator=generator) < 0.3, 0, truth)
    halves = [count_segmentation(found[p], truth[p], ORGANS, None) for p in (slice(4), slice(4, 9))]
    merged = merge(*(MetricSums(n, 0.0, h) for n, h in zip((4, 5), halves, strict=True)))
    dice = next(v for v in summarise(merged, ORGANS) if (v.metric, v.class_name) == ("dice", ""))
    cases = [
        np.mean(
            [2 * ((f == k) & (t == k)).sum() / ((f == k).sum() + (t == k).sum()) for k in (1, 2)]
        )
        for f, t in zip(found.numpy(), truth.numpy(), strict=True)
    ]
    assert dice.standard_error == pytest.approx(scipy.stats.sem(cases))
