"""Randomness for privacy: whose it is, what it looks like, and that nothing repeats it."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.privacy.step import noised_mean
from wardround.common.errors import RunError
from wardround.common.privacy.gaussian_mechanism import grid_step
from wardround.common.privacy.secure_random import KEY_BYTES, Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan


def plan_of(noise: float = 1.0, clip: float = 1.0, expected: int = 1) -> PrivacyPlan:
    return PrivacyPlan(0.5, expected, clip, noise, 1, 1, 1e-5, 8)


# --- The stream ----------------------------------------------------------------
def test_the_stream_is_aes_256_in_counter_mode() -> None:
    # Test case 13 of McGrew and Viega, "The Galois/Counter Mode of Operation": under the zero key
    # H is the encrypted zero block, and the tag of nothing the encrypted block that counts 1.
    words = Randomness(bytes(KEY_BYTES)).words(4)
    assert words.numpy().tobytes().hex() == (
        "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738b"
    )


def test_the_key_is_the_operating_systems_and_of_256_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr(os, "urandom", spy)
    Randomness()
    assert asked == [32]


def test_two_streams_have_nothing_in_common_and_no_seed_of_torch_changes_that() -> None:
    torch.manual_seed(0)
    first = Randomness().words(100)
    torch.manual_seed(0)
    second = Randomness().words(100)
    assert not set(first.tolist()) & set(second.tolist())


def test_drawing_leaves_the_global_generators_as_they_were() -> None:
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    randomness = Randomness()
    randomness.normal((1000,))
    randomness.uniform(10)
    randomness.coins(10, 0.5)
    randomness.choose(10, 3)
    torch.rand(3, generator=randomness.generator())
    assert torch.equal(before, torch.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()


def test_a_stream_cannot_be_copied() -> None:
    randomness = Randomness()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            attempt(randomness)


def test_a_child_process_cannot_draw_its_parents_numbers_again() -> None:
    randomness = Randomness()
    child = os.fork()
    if child == 0:
        try:
            randomness.words(1)
        except RunError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(randomness.words(1)) == 1


# --- Its distributions -----------------------------------------------------------
def test_normal_numbers_are_normal() -> None:
    from scipy.stats import kstest

    numbers = Randomness().normal((500, 600))
    assert numbers.shape == (500, 600)
    assert numbers.dtype == torch.float64
    flat = numbers.flatten().numpy()
    # A right generator fails each of these less than once in a hundred thousand runs.
    assert kstest(flat, "norm").pvalue > 1e-6
    assert abs(flat.mean()) < 5 / np.sqrt(flat.size)
    assert abs(flat.std() - 1) < 5 / np.sqrt(2 * flat.size)
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 5 / np.sqrt(flat.size)
    beyond = (np.abs(flat) > 3).mean()
    assert abs(beyond - 0.0026998) < 5 * np.sqrt(0.0027 / flat.size)


def test_uniform_numbers_are_uniform_and_never_0_or_1() -> None:
    from scipy.stats import kstest

    numbers = Randomness().uniform(200_000)
    assert 0 < numbers.min() < numbers.max() < 1
    assert kstest(numbers.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("words", [0, -1, (1 << 63) - 1, -(1 << 63)])
def test_the_rarest_words_make_finite_numbers(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Randomness, "words", lambda self, count: torch.full((count,), words, dtype=torch.int64)
    )
    number = Randomness().normal((1,)).item()
    assert abs(number) < 9.2
    assert 0 < Randomness().uniform(1).item() < 1


@settings(max_examples=20, deadline=None)
@given(probability=st.floats(0, 1))
def test_coins_fall_with_their_probability(probability: float) -> None:
    share = Randomness().coins(20_000, probability).double().mean().item()
    assert abs(share - probability) <= 6 * np.sqrt(probability * (1 - probability) / 20_000) + 1e-9


def test_certain_coins_are_certain() -> None:
    assert Randomness().coins(1000, 1.0).all()
    assert not Randomness().coins(1000, 0.0).any()
    for impossible in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="is no probability"):
            Randomness().coins(1, impossible)


def test_every_choice_of_examples_is_as_likely() -> None:
    randomness = Randomness()
    times = torch.zeros(10)
    for _ in range(3000):
        chosen = randomness.choose(10, 3)
        assert len(set(chosen.tolist())) == 3
        times[chosen] += 1
    assert (times - 900).abs().max() < 6 * np.sqrt(3000 * 0.3 * 0.7)
    assert randomness.choose(3, 8).tolist() == [0, 1, 2]


# --- The noise -------------------------------------------------------------------
def test_the_noise_has_the_scale_of_the_plan_and_is_normal() -> None:
    from scipy.stats import kstest

    plan = plan_of(noise=1.7, clip=0.3, expected=5)
    mean = noised_mean({"w": torch.zeros(400_000)}, plan, Randomness())["w"]
    claimed = 1.7 * 0.3 / 5
    assert mean.std().item() == pytest.approx(claimed, rel=0.01)
    assert plan.noise_deviation == pytest.approx(claimed)
    assert kstest(mean[:100_000].numpy() / claimed, "norm").pvalue > 1e-6


def test_every_parameter_and_every_step_has_noise_of_its_own() -> None:
    randomness = Randomness()
    zeros = {"a": torch.zeros(5000), "b": torch.zeros(5000)}
    steps = [noised_mean(zeros, plan_of(), randomness) for _ in range(2)]
    drawn = torch.stack([step[name] for step in steps for name in zeros])
    correlation = torch.corrcoef(drawn) - torch.eye(4)
    assert correlation.abs().max() < 6 / np.sqrt(5000)


def test_the_sum_is_kept_and_divided_by_the_expected_patients_alone() -> None:
    total = {"w": torch.tensor([[1.0, -2.0], [3.0, 0.5]])}
    mean = noised_mean(total, plan_of(noise=0.0, expected=4), Randomness())["w"]
    assert mean.tolist() == [[0.25, -0.5], [0.75, 0.125]]
    assert total["w"].tolist() == [[1.0, -2.0], [3.0, 0.5]], "what was given stays as it was"
    noised = noised_mean(
        {"w": torch.full((100_000,), 10.0)}, plan_of(noise=2.0, expected=4), Randomness()
    )["w"]
    assert noised.mean().item() == pytest.approx(2.5, abs=6 * 0.5 / np.sqrt(100_000))


@settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(0.05, 50),
    clip=st.floats(1e-3, 1e3),
    value=st.floats(-100, 100),
)
def test_what_is_let_out_lies_on_a_public_grid_whatever_it_was(
    noise: float, clip: float, value: float
) -> None:
    deviation = noise * clip
    step = grid_step(deviation)
    assert deviation * 2**-11 < step <= deviation * 2**-10
    let_out = noised_mean({"w": torch.full((50,), value)}, plan_of(noise, clip), Randomness())["w"]
    places = let_out.double() / step
    assert torch.equal(places, places.round())


def test_the_grid_is_too_fine_to_be_felt() -> None:
    # Even noise on [-step/2, step/2] has the variance step^2 / 12.
    assert grid_step(1.0) ** 2 / 12 < 1e-7


@pytest.mark.gpu
def test_on_a_gpu_the_noise_is_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    zeros = torch.zeros(5_000_000)
    there, here = (
        noised_mean({"w": zeros.to(device)}, plan_of(1.3), Randomness(bytes(KEY_BYTES)))["w"].cpu()
        for device in ("cuda", "cpu")
    )
    # A last bit of the inverse may fall on the other side of a line of the grid.
    assert (there != here).float().mean() < 1e-6
    assert (there - here).abs().max() <= grid_step(1.3)
