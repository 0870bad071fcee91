"""A1 and A2: images come back from an unprotected update, and not from a private one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.training.losses.labels import cross_entropy
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.masks import add_mask
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.simulations.privacy_attacks.analytic import (
    first_linear_layer,
    read_image,
    read_units,
)
from wardround.simulations.privacy_attacks.gradient_matching import (
    GEIPING,
    ZHU,
    Search,
    infer_label,
    match_gradients,
)
from wardround.simulations.privacy_attacks.likeness import (
    best_likeness,
    correlation,
    count_identified,
)
from wardround.simulations.privacy_attacks.observation import (
    Gradients,
    observe_plainly,
    observe_protected,
)

LOSS = MeanLoss(cross_entropy).per_sample
PATIENTS, DRAWS = 20, 5
# One step, one patient expected: what is let out is the clipped, noised gradient itself.
PLAN = PrivacyPlan(1.0, 1, 1.0, 0.1, 1, 1, 1e-5, 1)


def phantom(seed: int, side: int) -> Tensor:
    """Return a picture ``(1, 1, side, side)`` of eight soft ellipses."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = torch.zeros(side, side)
    for _ in range(8):
        left, top, width, height, turn, grey = torch.rand(6, generator=generator).tolist()
        across, down = x - 1.4 * left + 0.7, y - 1.4 * top + 0.7
        cosine, sine = math.cos(math.pi * turn), math.sin(math.pi * turn)
        first = (across * cosine + down * sine) / (0.15 + 0.4 * width)
        second = (down * cosine - across * sine) / (0.15 + 0.4 * height)
        image = image + (1.2 * grey - 0.3) * torch.sigmoid(20 * (1 - first**2 - second**2))
    return (image / image.abs().max())[None, None]


def mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 2))


def observe(
    network: nn.Module, image: Tensor, label: int, noise: float | None, key: int = 0
) -> Gradients:
    """Return what a server sees of one patient; noise None is without any protection."""
    batch = Batch(image, None, torch.tensor([label]))
    if noise is None:
        return observe_plainly(network, batch, LOSS)
    plan, randomness = replace(PLAN, noise_multiplier=noise), Randomness(bytes([key] * 32))
    return observe_protected(network, PatientBatch(batch, (1,)), LOSS, plan, "loop", randomness)


def read_all(noise: float | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return 20 patients' images and what the pooled analytic attack makes of each."""
    network, originals = mlp(), [phantom(seed, 28) for seed in range(PATIENTS)]
    seen = [observe(network, image, k % 2, noise, k) for k, image in enumerate(originals)]
    return originals, [read_image(gradients, "1") for gradients in seen]


def mean_likeness(originals: list[Tensor], images: list[Tensor]) -> float:
    pairs = list(zip(images, originals, strict=True))
    return sum(correlation(image, original) for image, original in pairs) / len(pairs)


# --- A1: read off the first layer ----------------------------------------------------------------


def test_every_patient_is_read_off_an_unprotected_update() -> None:
    originals, images = read_all(None)
    assert count_identified(images, originals) >= 18
    assert mean_likeness(originals, images) > 0.999


def test_clipping_alone_protects_nobody() -> None:
    originals, images = read_all(0.0)
    assert count_identified(images, originals) >= 18
    assert mean_likeness(originals, images) > 0.999


def test_noise_of_a_tenth_hides_the_picture_but_not_from_who_pools_all_units() -> None:
    """One unit alone finds 4 of 20 or fewer, all units together more: that is no protection."""
    network, originals = mlp(), [phantom(seed, 28) for seed in range(PATIENTS)]
    standalone, pooled, likeness = 0, 0, 0.0
    for draw in range(DRAWS):
        one_unit, all_units = [], []
        for index, image in enumerate(originals):
            seen = observe(network, image, index % 2, 0.1, draw * PATIENTS + index)
            strongest = int(seen["1.bias"].abs().argmax())
            one_unit.append(seen["1.weight"][strongest] / seen["1.bias"][strongest])
            all_units.append(read_image(seen, "1"))
        standalone += count_identified(one_unit, originals)
        pooled += count_identified(all_units, originals)
        likeness += mean_likeness(originals, all_units) / DRAWS
    assert standalone / DRAWS <= 4
    assert standalone < pooled
    assert abs(likeness) < 0.1


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_noise_of_a_usual_plan_hides_every_patient(noise: float) -> None:
    originals, images = read_all(noise)
    assert count_identified(images, originals) <= 4
    assert abs(mean_likeness(originals, images)) < 0.05


def test_one_patient_who_excites_a_unit_alone_is_read_off_a_batch() -> None:
    network = mlp()
    images = torch.cat([phantom(seed, 28) for seed in range(4)])
    seen = observe_plainly(network, Batch(images, None, torch.tensor([0, 1, 0, 1])), LOSS)
    units = read_units(seen, "1")
    best = max(best_likeness(units, image)[0] for image in images)
    assert best > 0.9


def test_a_step_that_excites_no_unit_gives_zeros() -> None:
    seen = {"1.weight": torch.zeros(3, 5), "1.bias": torch.zeros(3)}
    assert torch.equal(read_image(seen, "1"), torch.zeros(5))
    assert torch.equal(read_units(seen, "1"), torch.zeros(1, 5))


def test_only_a_linear_layer_that_comes_first_is_read() -> None:
    assert first_linear_layer(mlp()) == "1"
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    assert first_linear_layer(convolution) is None
    assert first_linear_layer(nn.Sequential(nn.Linear(3, 2, bias=False))) is None


# --- A2: gradient matching -----------------------------------------------------------------------


SIDE = 16


def smooth_network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2, stride=2),
            nn.GELU(),
            nn.Conv2d(8, 8, 5, padding=2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(8 * (SIDE // 2) ** 2, 2),
        )


def search_for(network: nn.Module, seen: Gradients, search: Search) -> Tensor:
    start = torch.Generator().manual_seed(1)
    found = match_gradients(network, seen, LOSS, (1, SIDE, SIDE), search, start)
    return found.image


def test_gradient_matching_brings_an_unprotected_patient_back() -> None:
    network = smooth_network()
    for index in range(2):
        image = phantom(index, SIDE)
        seen = observe(network, image, index, None)
        assert correlation(search_for(network, seen, ZHU), image) >= 0.8


def test_gradient_matching_fails_on_a_private_update() -> None:
    network = smooth_network()
    search = replace(ZHU, iterations=100, restarts=1)
    for index in range(2):
        image = phantom(index, SIDE)
        seen = observe(network, image, index, 0.1, index)
        assert abs(correlation(search_for(network, seen, search), image)) <= 0.2


def test_the_signed_search_brings_a_patient_back_from_a_network_with_relu() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * (SIDE // 2) ** 2, 2),
        )
    image = phantom(3, SIDE)
    seen = observe(network, image, 1, None)
    found = search_for(network, seen, replace(GEIPING, iterations=400))
    assert correlation(found, image) >= 0.7


def test_a_search_ends_in_its_time() -> None:
    network = smooth_network()
    seen = observe(network, phantom(0, SIDE), 0, 0.1)
    endless = Search("signed-adam", iterations=10**9, seconds=0.2)
    assert search_for(network, seen, endless).isfinite().all()


@pytest.mark.parametrize("label", [0, 1])
def test_the_label_is_read_off_the_last_bias(label: int) -> None:
    network = smooth_network()
    assert infer_label(observe(network, phantom(5, SIDE), label, None), network) == label


def test_a_network_without_a_last_linear_layer_hides_its_label() -> None:
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        infer_label({}, nn.Sequential(nn.Conv2d(1, 2, 3)))


# --- likeness ------------------------------------------------------------------------------------


def test_likeness_ignores_brightness_and_contrast_and_survives_a_blank() -> None:
    image = phantom(0, 28)
    assert correlation(3 * image + 7, image) == pytest.approx(1.0)
    assert correlation(-image, image) == pytest.approx(-1.0)
    assert correlation(torch.zeros(28, 28), image) == 0.0
    value, found = best_likeness(torch.stack([torch.zeros(784), image.flatten()]), image)
    assert value == pytest.approx(1.0)
    assert torch.equal(found, image.flatten())


# --- masks: the server sees a vector of noise from each site, and their sum ----------------------


def brought_back(images: list[Tensor], originals: list[Tensor]) -> int:
    """Return how many images are those of their patients, to a correlation of 0.9."""
    pairs = zip(images, originals, strict=True)
    return sum(correlation(image, original) > 0.9 for image, original in pairs)


def test_masks_alone_bring_back_nobody_though_the_sum_is_exact() -> None:
    network, originals = mlp(), [phantom(seed, 28) for seed in range(PATIENTS)]
    others = torch.cat([phantom(1000 + seed, 28) for seed in range(9 * 16)])
    labels = torch.arange(len(others)) % 2
    in_sum, in_vector = [], []
    for index, image in enumerate(originals):
        together = Batch(torch.cat([image, others]), None, torch.cat([torch.tensor([0]), labels]))
        in_sum.append(read_image(observe_plainly(network, together, LOSS), "1"))
        own = observe(network, image, 0, None)
        in_vector.append(read_image({n: masked(part, index) for n, part in own.items()}, "1"))
    assert brought_back(in_sum, originals) == 0
    assert brought_back(in_vector, originals) == 0
    assert brought_back(read_all(None)[1], originals) == PATIENTS


def test_who_knows_all_others_of_a_sum_takes_them_off_it() -> None:
    """Why masks are no differential privacy: nothing bounds what the last patient adds."""
    network, originals = mlp(), [phantom(seed, 28) for seed in range(PATIENTS)]
    images = []
    for index, image in enumerate(originals):
        rest = [other for place, other in enumerate(originals) if place != index]
        known = Batch(torch.cat(rest), None, torch.zeros(PATIENTS - 1, dtype=torch.int64))
        whole = Batch(torch.cat([image, *rest]), None, torch.zeros(PATIENTS, dtype=torch.int64))
        less, all_of = (observe_plainly(network, part, LOSS) for part in (known, whole))
        left = {name: PATIENTS * all_of[name] - (PATIENTS - 1) * less[name] for name in all_of}
        images.append(read_image(left, "1"))
    assert brought_back(images, originals) == PATIENTS


def masked(part: Tensor, key: int) -> Tensor:
    """Return a tensor as the server sees it: words under a mask, decoded as if they were bare."""
    grid = Grid(16.0, 48, 100)
    words = grid.encode(part.double().flatten().numpy())
    add_mask(words, bytes([key + 1] * 32))
    return torch.from_numpy(grid.decode(grid.sums_of(words))).reshape(part.shape)
