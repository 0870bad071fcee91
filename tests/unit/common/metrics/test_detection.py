import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from wardround.common.errors import InputError
from wardround.common.metrics.detection import (
    FROC_RATES,
    OVERLAPS,
    DetectionSums,
    average_precision,
    count_image,
    froc_curve,
    match,
    overlaps_of,
    sensitivity_at,
)
from wardround.common.metrics.records import (
    from_arrays,
    sums_from_record,
    sums_to_record,
    to_arrays,
)
from wardround.common.metrics.sums import MetricSums, empty_sums, merge, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def study_of(classes: int = 3, bins: int = 1000) -> Study:
    names = [f"class {index}" for index in range(max(2, classes))]
    study = parse_study(
        {
            "study": {"name": "test", "task": "classification"},
            "data": {"classes": names, "size": [16, 16]},
            "model": {"network": "small-cnn"},
            "evaluation": {"score_bins": bins},
        }
    )
    return study.model_copy(update={"study": study.study.model_copy(update={"task": "detection"})})


def draw_image(rng, classes=3, dims=2):
    """Return boxes found and true in one image: some found well, some doubly, some not at all."""
    truths = int(rng.integers(0, 9))
    low = rng.uniform(0, 80, (truths, dims))
    sides = rng.uniform(5, 30, (truths, dims))
    kinds = rng.integers(0, classes, truths)
    truth = np.column_stack([kinds, low, low + sides])
    picked = rng.integers(0, truths, int(rng.integers(0, 14))) if truths else []
    found = [
        [
            rng.beta(3, 2),
            kinds[one] if rng.random() < 0.9 else rng.integers(classes),
            *(truth[one, 1:] + np.clip(rng.normal(0, 2, 2 * dims), -2.4, 2.4)),
        ]
        for one in picked
    ]
    for _ in range(int(rng.integers(0, 5))):
        corner = rng.uniform(0, 80, dims)
        box = [*corner, *(corner + rng.uniform(5, 30, dims))]
        found.append([rng.beta(2, 4), rng.integers(classes), *box])
    return np.array(found).reshape(-1, 2 + 2 * dims), truth


def padded(found, truth, rows=30):
    """Return both as a batch holds them: float32, rows of class -1 at the end."""
    whole_found = np.zeros((rows, found.shape[1]), np.float32)
    whole_truth = np.zeros((rows, truth.shape[1]), np.float32)
    whole_found[:, 1], whole_truth[:, 0] = -1, -1
    whole_found[: len(found)], whole_truth[: len(truth)] = found, truth
    return whole_found, whole_truth


def measure(images, study) -> MetricSums:
    sums = DetectionSums.empty(study, surfaces=False)
    for found, truth in images:
        count_image(*padded(found, truth), sums)
    return MetricSums(len(images), 0.5 * len(images), sums)


def draw(count, seed, **how):
    rng = np.random.default_rng(seed)
    return [draw_image(rng, **how) for _ in range(count)]


def values_of(sums, study):
    return {(value.metric, value.class_name): value for value in summarise(sums, study)}


def coco_values(images, classes):
    """Return COCO's precision table, ``(10, 101, K)``, of faster-coco-eval on all boxes at once."""
    from faster_coco_eval import COCO, COCOeval_faster

    truths, found = [], []
    for image, (boxes, true_boxes) in enumerate(images, start=1):
        for kind, x0, y0, x1, y1 in true_boxes:
            size = (x1 - x0, y1 - y0)
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image,
                    "category_id": int(kind) + 1,
                    "bbox": [x0, y0, *size],
                    "area": size[0] * size[1],
                    "iscrowd": 0,
                }
            )
        for score, kind, x0, y0, x1, y1 in boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            row = {"image_id": image, "category_id": int(kind) + 1, "bbox": box, "score": score}
            found.append(row)
    whole = {
        "images": [{"id": image + 1, "width": 200, "height": 200} for image in range(len(images))],
        "categories": [{"id": kind + 1, "name": str(kind)} for kind in range(classes)],
        "annotations": truths,
    }
    with redirect_stdout(io.StringIO()):
        coco = COCO(whole)
        evaluated = COCOeval_faster(coco, coco.loadRes(found), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
    return evaluated.eval["precision"][:, :, :, 0, 2]


STUDY = study_of()


@pytest.mark.parametrize("seed", range(4))
def test_map_merged_from_four_sites_equals_coco_on_pooled_boxes(seed):
    sites = [draw(30, (seed, site)) for site in range(4)]
    merged = empty_sums(STUDY)
    for site in sites:
        merged = merge(merged, measure(site, STUDY))
    pooled = [
        (found.astype(np.float32).astype(float), truth.astype(np.float32).astype(float))
        for site in sites
        for found, truth in site
    ]
    precision = coco_values(pooled, 3)

    values = values_of(merged, STUDY)

    assert values["map50", ""].value == pytest.approx(precision[0].mean(), abs=0.005)
    assert values["map", ""].value == pytest.approx(precision.mean(), abs=0.005)
    for index in range(3):
        for metric, expected in (("map50", precision[0]), ("map", precision)):
            value = values[metric, f"class {index}"]
            assert value.value == pytest.approx(expected[..., index].mean(), abs=0.005)
            assert abs(value.value - expected[..., index].mean()) <= value.error_bound + 1e-9


def test_map_is_exact_where_no_two_scores_share_a_bin():
    rng = np.random.default_rng(5)
    images, study = draw(12, 5), study_of(bins=100_000)
    pooled = []
    for found, truth in images:
        found[:, 0] = np.round(rng.uniform(0.1, 0.9, len(found)), 6)
        pooled.append((found.astype(np.float32).astype(float), truth.astype(np.float32)))
    precision = coco_values([(f, t.astype(float)) for f, t in pooled], 3)

    values = values_of(measure(images, study), study)

    assert values["map", ""].value == pytest.approx(precision.mean(), abs=1e-9)
    assert values["map", ""].error_bound == pytest.approx(0.0, abs=1e-12)


def test_a_coarse_histogram_says_how_far_off_it_can_be():
    images, fine, coarse = draw(60, 9), study_of(bins=100_000), study_of(bins=10)
    exact, rough = (values_of(measure(images, s), s) for s in (fine, coarse))

    for key in exact:
        if key[0] == "loss":
            continue
        assert 0 < rough[key].error_bound < 0.3
        assert abs(rough[key].value - exact[key].value) <= rough[key].error_bound + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_froc_equals_monai_on_pooled_boxes(seed):
    from monai.metrics import compute_froc_curve_data, compute_froc_score

    images, study = draw(80, seed, classes=1), study_of(2)
    hit_scores, false_scores, truths = [], [], 0
    for found, truth in images:
        boxes = found[np.argsort(-found[:, 0], kind="stable")]
        hits = match(overlaps_of(boxes[:, 2:], truth[:, 1:]))[0]
        hit_scores += [*boxes[hits, 0]]
        false_scores += [*boxes[~hits, 0]]
        truths += len(truth)
    curve = compute_froc_curve_data(
        np.array(false_scores), np.array(hit_scores), truths, len(images)
    )

    value = values_of(measure(images, study), study)["froc", "class 0"]

    expected = compute_froc_score(curve[0], curve[1], FROC_RATES)
    assert value.value == pytest.approx(expected, abs=0.005)
    assert 0.1 < value.value < 1


def test_boxes_in_three_dimensions_overlap_by_their_volumes():
    a = np.array([[0, 0, 0, 4, 4, 4], [1, 1, 1, 1, 3, 3]], float)
    b = np.array([[0, 0, 2, 4, 4, 6], [9, 9, 9, 10, 10, 10]], float)

    assert_array_equal(overlaps_of(a, b), [[32 / 96, 0], [0, 0]])


@pytest.mark.parametrize("dims", [2, 3])
def test_boxes_found_exactly_give_a_map_of_one(dims):
    rng, images = np.random.default_rng(1), []
    for _ in range(20):
        truth = draw_image(rng, dims=dims)[1]
        images.append((np.column_stack([np.full(len(truth), 0.9), truth]), truth))

    values = values_of(measure(images, STUDY), STUDY)

    assert {values[metric, ""].value for metric in ("map50", "map", "froc")} == {1.0}


def test_a_true_box_is_hit_once_by_the_box_of_the_highest_score():
    truth = np.array([[0, 0, 0, 10, 10]], float)
    found = np.array([[0.55, 0, 0, 0, 10, 10], [0.95, 0, 0, 0, 10, 8]], float)
    sums = measure([(found, truth)], study_of(bins=10)).measured

    at = {score: sums.hits[:, 0, score].tolist() for score in (5, 9)}
    assert at[9] == [1] * 7 + [0] * 3  # IoU .8
    assert at[5] == [0] * 7 + [1] * 3
    assert sums.found[0].sum() == 2


def test_images_without_boxes_count_for_false_positives_only():
    found = np.array([[0.9, 0, 0, 0, 10, 10]], float)
    truth = np.array([[0, 0, 0, 10, 10]], float)
    hit, nothing, empty = (found, truth), (found, truth[:0]), (found[:0], truth[:0])

    alone = values_of(measure([hit], STUDY), STUDY)
    more = values_of(measure([hit, empty, empty], STUDY), STUDY)
    false = values_of(measure([hit, nothing, nothing, nothing], STUDY), STUDY)

    assert alone["map50", "class 0"].value == more["map50", "class 0"].value == 1
    assert more["map50", ""].support == 3
    assert more["map50", "class 0"].support == 1
    assert false["map50", "class 0"].value < 1
    assert math.isnan(alone["map50", "class 1"].value)
    assert alone["map50", "class 1"].support == 0
    assert alone["map50", ""].value == 1


def test_a_class_whose_boxes_nobody_found_has_a_map_of_zero():
    truth = np.array([[0, 0, 0, 10, 10], [1, 0, 0, 10, 10]], float)
    found = np.array([[0.9, 0, 0, 0, 10, 10]], float)

    values = values_of(measure([(found, truth)], STUDY), STUDY)

    assert values["map50", "class 1"].value == 0
    assert values["map50", ""].value == 0.5


def test_no_more_than_a_hundred_boxes_of_a_class_an_image_count():
    found = np.zeros((150, 6), np.float32)
    found[:, 0], found[:, 4:] = np.linspace(0.1, 0.9, 150), 5
    sums = DetectionSums.empty(STUDY, surfaces=False)

    count_image(found, np.zeros((1, 5), np.float32) - 1, sums)

    assert sums.found.sum() == 100
    assert sums.found[0, :300].sum() == 0


def test_the_curve_starts_without_false_positives_and_only_rises():
    sums = measure(draw(40, 3), STUDY).measured
    curve = froc_curve(sums, 0, 40)

    assert curve is not None
    assert (curve.false_positives[0], curve.sensitivity[0]) == (0, 0)
    assert (np.diff(curve.false_positives) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()
    assert sensitivity_at(curve, 1e9) == (curve.sensitivity[-1], 0)
    assert froc_curve(DetectionSums.empty(STUDY, surfaces=False), 0, 4) is None


def test_hits_at_once_need_no_memory_of_their_number():
    many = np.array([2**40, 2**40])

    value, bound = average_precision(many, many * 2, 2**42)

    assert 0.2 < value < 0.3
    assert bound < 0.3


counts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), min_size=3, max_size=3)


@settings(max_examples=20, deadline=None)
@given(sites=counts, dims=st.sampled_from([2, 3]))
def test_merging_depends_on_no_order_and_equals_counting_all_at_once(sites, dims):
    study = study_of(bins=50)
    images = [draw(count, seed, dims=dims) for count, seed in sites]
    a, b, c = (measure(site, study) for site in images)
    pooled = to_arrays(measure([image for site in images for image in site], study))

    for merged in (merge(merge(a, b), c), merge(c, merge(b, a)), merge(b, merge(c, a))):
        for name, array in to_arrays(merged).items():
            assert_array_equal(array, pooled[name])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([2, 3]))
def test_what_boxes_give_is_never_refused_and_survives_the_message(seed, dims):
    study = study_of(bins=20)
    sums = measure(draw(6, seed, dims=dims), study)

    received = sums_from_record(sums_to_record(sums), study)

    for name, array in to_arrays(received).items():
        assert_array_equal(array, to_arrays(sums)[name])
    assert (np.diff(sums.measured.hits.sum(-1), axis=0) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_crowded_boxes_are_matched_as_the_check_of_messages_expects(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 6, (18, 2))
    boxes = np.column_stack([low, low + rng.uniform(4, 9, (18, 2))])
    found = np.column_stack([rng.random(12), np.zeros(12), boxes[:12]])
    truth = np.column_stack([np.zeros(6), boxes[12:]])
    study = study_of(bins=1000)
    sums = measure([(found, truth)], study)

    assert from_arrays(to_arrays(sums), study).measured.hits.sum() == sums.measured.hits.sum()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("hits", lambda a: a + 1, "more hits than boxes"),
        ("truths", lambda a: a * 0 + 3, "does not fit|more hits than there are"),
        ("truths", lambda a: a * 0, "does not fit"),
        ("images", lambda a: a * 0, "does not fit"),
        ("images", lambda a: a + 50, "more than the 8 examinations"),
        ("found", lambda a: a + 1000, "more than 100 boxes"),
        ("hits", lambda a: a[::-1], "at a higher overlap"),
        ("hits", lambda a: a[:9], "has shape"),
        ("found", lambda a: a[:, :5], "has shape"),
        ("found", lambda a: a - 1, "is negative"),
        ("found", lambda a: a + 0.5, "is not a count"),
        ("found", lambda a: a * math.nan, "not a finite number"),
    ],
)
def test_counts_that_cannot_be_true_are_refused(name, value, reason):
    arrays = to_arrays(measure(draw(8, 3), STUDY))
    arrays[name] = value(arrays[name].astype(float))

    with pytest.raises(InputError, match=reason):
        from_arrays(arrays, STUDY)


def test_hits_of_more_boxes_than_are_true_are_refused():
    arrays = to_arrays(measure(draw(8, 3), STUDY))
    arrays["found"] = arrays["found"] * 0 + np.eye(1, 1000, 7, dtype=np.int32) * 90
    arrays["hits"] = arrays["found"][None] * np.ones((len(OVERLAPS), 1, 1), np.int32)

    with pytest.raises(InputError, match="more hits than there are true boxes"):
        from_arrays(arrays, STUDY)


def test_sums_of_other_bins_are_not_merged():
    with pytest.raises(InputError, match="cannot be merged"):
        merge(measure(draw(2, 1), STUDY), measure(draw(2, 1), study_of(bins=10)))
