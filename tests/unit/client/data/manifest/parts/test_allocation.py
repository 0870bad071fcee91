import hashlib
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from wardround.client.data.manifest.examination import SPLITS, SplitName
from wardround.client.data.manifest.parts.allocation import draw_parts, spread, stratify
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

KEY = b"k" * 32
SHARES: dict[SplitName, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}

fractions = some.sampled_from([0.0, 0.01, 0.1, 0.15, 0.2, 0.3, 0.34])
shares = some.tuples(fractions, fractions).map(
    lambda pair: {"train": 1 - sum(pair), "validation": pair[0], "test": pair[1]}
)
sizes = some.lists(some.integers(0, 40), min_size=1, max_size=8).filter(sum)
keys = some.binary(min_size=32, max_size=32)
offsets = some.floats(0, 1, exclude_max=True) | some.sampled_from([0.0, 0.5, 1 - 2**-48])


def ward(sizes: list[int]) -> dict[str, tuple[float, ...]]:
    """Patients of classes of these sizes, by the hash of a name."""
    return {
        hashlib.sha256(f"{stratum} {number}".encode()).hexdigest(): (float(stratum),)
        for stratum, size in enumerate(sizes)
        for number in range(size)
    }


@settings(max_examples=300, deadline=None)
@given(sizes, shares, keys)
def test_each_part_has_its_share_and_nobody_is_left_out(
    sizes: list[int], shares: dict[SplitName, float], key: bytes
) -> None:
    patients = ward(sizes)
    drawn = draw_parts(patients, shares, key)
    counts = Counter(drawn.values())
    assert drawn.keys() == patients.keys()
    for part in SPLITS:
        assert abs(counts[part] - shares[part] * len(patients)) < 1 + 1e-6
        assert shares[part] or not counts[part]


@settings(max_examples=300, deadline=None)
@given(sizes, shares, keys)
def test_a_part_that_lacks_patients_gets_one_where_there_are_enough(
    sizes: list[int], shares: dict[SplitName, float], key: bytes
) -> None:
    drawn = draw_parts(ward(sizes), shares, key, SPLITS)
    asked = {part for part in SPLITS if shares[part]}
    if sum(sizes) >= len(asked):
        assert set(drawn.values()) == asked


@settings(max_examples=300, deadline=None)
@given(sizes, shares, keys)
def test_each_class_has_its_share_and_is_in_every_part_that_has_room(
    sizes: list[int], shares: dict[SplitName, float], key: bytes
) -> None:
    patients = ward(sizes)
    drawn = draw_parts(patients, shares, key, SPLITS)
    totals = Counter(drawn.values())
    counts = Counter((patients[patient], part) for patient, part in drawn.items())
    large = [stratum for stratum, size in enumerate(sizes) if size >= len(totals)]
    room = all(totals[part] >= len(large) for part in totals)
    for stratum, size in enumerate(sizes):
        for part in totals:
            count = counts[(float(stratum),), part]
            if room and stratum in large:
                assert count
            # A class that must be in each part may take its places from the others.
            spared = len(large) if room else 0
            assert abs(count - size * totals[part] / len(patients)) < 2 + spared


@settings(max_examples=400, deadline=None)
@given(some.data())
def test_what_is_spread_adds_up_within_its_bounds(data: some.DataObject) -> None:
    sizes = data.draw(some.lists(some.integers(1, 30), min_size=1, max_size=10))
    lows = [data.draw(some.integers(0, size)) for size in sizes]
    total = data.draw(some.integers(sum(lows), sum(sizes)))
    counts = spread(total, sizes, lows, sizes, data.draw(offsets))
    assert sum(counts) == total
    assert all(low <= count <= size for low, count, size in zip(lows, counts, sizes, strict=True))


@pytest.mark.parametrize("patients", [14, 18])
def test_a_small_site_with_three_events_has_one_in_each_part(patients: int) -> None:
    site = ward([patients - 3, 3])
    for seed in range(200):
        drawn = draw_parts(site, SHARES, hashlib.sha256(bytes([seed])).digest(), SPLITS)
        assert {part for patient, part in drawn.items() if site[patient] == (1.0,)} == set(SPLITS)


def test_ten_patients_with_one_event_are_in_all_parts() -> None:
    for seed in range(200):
        key = hashlib.sha256(bytes([seed])).digest()
        counts = Counter(draw_parts(ward([9, 1]), SHARES, key, SPLITS).values())
        assert counts["train"] == 7
        assert {counts["validation"], counts["test"]} == {1, 2}


@pytest.mark.parametrize("site", [[1], [3], [1, 1, 1], [9, 1], [20, 20, 1]])
def test_no_patient_is_in_a_part_for_certain(site: list[int]) -> None:
    # The last patient is alone in a class, or alone at the site, or nearly.
    patients = ward(site)
    last = [*patients][-1]
    drawn = Counter(
        draw_parts(patients, SHARES, hashlib.sha256(f"{seed}".encode()).digest())[last]
        for seed in range(1_000)
    )
    for part in SPLITS:  # four standard errors of 1,000 draws
        assert drawn[part] / 1_000 == pytest.approx(SHARES[part], abs=0.06)


def test_the_same_key_draws_the_same_and_another_key_others() -> None:
    patients = ward([50, 50])
    backwards = dict(reversed(patients.items()))
    assert draw_parts(patients, SHARES, KEY) == draw_parts(backwards, SHARES, KEY)
    assert draw_parts(patients, SHARES, KEY) != draw_parts(patients, SHARES, b"l" * 32)


def test_ten_thousand_patients_are_drawn_in_half_a_second() -> None:
    patients = ward([6_000, 3_000, 1_000])
    started = time.process_time()
    counts = Counter(draw_parts(patients, SHARES, KEY).values())
    assert time.process_time() - started < 0.5
    assert counts == {"train": 7_000, "validation": 1_500, "test": 1_500}


def study_of(**data: object) -> Study:
    return parse_study(
        {
            "study": {"name": "chest", "task": "classification"},
            "data": {"classes": ["a", "b", "c"], "size": [32, 32], **data},
            "model": {"network": "small-cnn"},
        }
    )


def test_a_patient_counts_for_the_rarest_of_its_classes() -> None:
    one = [("p", (0.0,)), ("p", (2.0,)), ("q", (0.0,)), ("r", (0.0,)), ("s", (1.0,))]
    assert stratify(one, study_of()) == {"p": (2.0,), "q": (0.0,), "r": (0.0,), "s": (1.0,)}
    several = [("p", (1.0, 0.0, 1.0)), ("q", (1.0, 0.0, 0.0)), ("r", (0.0, 0.0, 0.0))]
    assert stratify(several, study_of(multi_label=True)) == {"p": (2.0,), "q": (0.0,), "r": ()}


def test_masks_make_no_strata() -> None:
    assert stratify([("p", None), ("q", None)], study_of()) == {"p": (), "q": ()}
