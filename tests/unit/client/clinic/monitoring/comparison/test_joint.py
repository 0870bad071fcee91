import numpy as np
import pytest

from wardround.client.clinic.monitoring.comparison.acquisition import acquisition_shifts
from wardround.client.clinic.monitoring.comparison.joint import images_p_value, soft_rates_p_value
from wardround.client.clinic.monitoring.comparison.two_samples import ks_p_values
from wardround.client.clinic.monitoring.image_statistics import measure

NAMES = ("one", "two", "three")


def drawn(seed: int, count: int, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, columns))


def images(seed: int, count: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    brightness = draw.normal(0.5, 0.04, (count, 1, 1))
    return np.clip(brightness + draw.normal(0, 0.15, (count, 24, 24)), 0, 1) * 255


def statistics(pictures: np.ndarray) -> tuple[list[str], np.ndarray]:
    rows = [measure(one[np.newaxis].astype(np.float32)) for one in pictures]
    return [*rows[0]], np.array([[*row.values()] for row in rows])


def test_what_no_single_column_shows_is_seen() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=300)
    alike = np.column_stack([x, x + draw.normal(0, 0.1, 300)])
    turned = np.column_stack([x[:40], -x[:40] + draw.normal(0, 0.1, 40)])
    assert ks_p_values(alike, turned).min() > 0.05
    generator = np.random.default_rng(1)
    assert images_p_value((alike, turned), NAMES[:2], 999, generator) <= 0.01


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_samples_of_one_kind_err_as_often_as_the_level_says(columns: int) -> None:
    found = [
        images_p_value(
            (drawn(2 * s, 40, columns), drawn(2 * s + 1, 15, columns)),
            [str(place) for place in range(columns)],
            199,
            np.random.default_rng(s),
        )
        for s in range(150)
    ]
    assert np.mean([p <= 0.1 for p in found]) < 0.19  # 15 expected of 150; 28 are 4 deviations


def test_the_direction_of_a_tone_curve_is_that_of_real_images_under_it() -> None:
    before = images(0, 120)
    names, rows = statistics(before)
    _, after = statistics(255 * (before / 255) ** 1.2)
    told = acquisition_shifts(rows, names)["tone curve"] / rows.std(0)
    real = (after - rows).mean(0) / rows.std(0)
    assert told @ real / np.linalg.norm(told) / np.linalg.norm(real) > 0.9


def test_a_small_tone_curve_is_seen_that_moves_no_image_far() -> None:
    names, reference = statistics(images(1, 150))
    _, bent = statistics(255 * (images(2, 30) / 255) ** 1.1)
    generator = np.random.default_rng(0)
    assert images_p_value((reference, bent), names, 1_999, generator) <= 0.005


def test_numbers_of_a_table_have_no_direction_of_an_acquisition() -> None:
    assert acquisition_shifts(drawn(0, 20), NAMES) == {}


def test_images_of_one_value_are_no_fault() -> None:
    flat = np.full((30, 24, 24), 7.0)
    names, rows = statistics(flat)
    assert acquisition_shifts(rows, names) == {}
    assert images_p_value((rows, rows[:10]), names, 199, np.random.default_rng(0)) == 1.0


def test_probabilities_tell_of_a_class_before_any_is_found() -> None:
    draw = np.random.default_rng(0)
    before, after = draw.uniform(0, 0.3, 200), draw.uniform(0.1, 0.45, 60)  # never the likelier
    two = [np.column_stack([1 - p, p]) for p in (before, after)]
    assert soft_rates_p_value(two[0], two[1], 999, np.random.default_rng(0)) <= 0.001
    assert soft_rates_p_value(two[0], two[0][:60], 999, np.random.default_rng(0)) > 0.05
    assert soft_rates_p_value(two[0][:3], two[1], 999, np.random.default_rng(0)) == 1.0
