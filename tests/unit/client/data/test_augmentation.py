import pytest
import torch
from torch import Tensor

from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import AugmentationParameters, draw_changes
from wardround.client.data.augmentation.presets import PRESETS, AugmentationPreset
from wardround.client.data.augmentation.rare_changes import (
    NNUNET,
    RareChange,
    apply_rare,
    draw_rare,
)
from wardround.common.study.rules.sections.training import MIRRORING


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(dimensions: int, count: int = 6) -> tuple[Tensor, Tensor]:
    size = (20, 28) if dimensions == 2 else (10, 12, 14)
    images = torch.rand(count, 2, *size, generator=seeded(1))
    return images, (images[:, 0] > 0.7).long() * 3


def turned(angle: Tensor) -> Tensor:
    """Return the affine that turns a flat image."""
    cosine, sine = float(angle.cos()), float(angle.sin())
    return torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_the_same_generator_state_gives_the_same_batch(name: str, dimensions: int) -> None:
    images, masks = batch_of(dimensions)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    results = [
        apply_changes(
            images, masks, draw_changes(PRESETS[name], len(images), dimensions, seeded(3))
        )
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    other, _ = apply_changes(
        images, masks, draw_changes(PRESETS[name], len(images), dimensions, seeded(4))
    )
    assert torch.equal(other, results[0][0]) == (name == "none")
    assert other.shape == images.shape
    assert other.isfinite().all()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_masks_move_with_their_images_and_keep_their_labels(name: str, dimensions: int) -> None:
    _, masks = batch_of(dimensions)
    shapes = torch.zeros_like(masks)
    shapes[:, 3:8, 5:11] = 3
    preset = PRESETS[name]
    drawn = draw_changes(preset, len(masks), dimensions, seeded())
    geometric = AugmentationParameters(
        drawn.flips, drawn.transposes, drawn.affine, moved=drawn.moved
    )
    images, moved = apply_changes(shapes[:, None].float() / 3, shapes, geometric)
    assert moved is not None
    assert moved.dtype == masks.dtype
    assert set(moved.unique().tolist()) <= {0, 3}
    sure = (images[:, 0] - 0.5).abs() > 0.49  # away from the rim, where images are interpolated
    assert torch.equal((images[:, 0] > 0.5)[sure], (moved == 3)[sure])
    assert sure.float().mean() > 0.7


@pytest.mark.parametrize("name", ["none", "light", "xray", "ct", "mr", "ultrasound"])
def test_bodies_with_a_left_and_a_right_are_never_mirrored(name: str) -> None:
    assert draw_changes(PRESETS[name], 4, 2, seeded()).flips is None


def test_flips_and_quarter_turns_reach_all_eight_views_and_nothing_else() -> None:
    image = torch.rand(1, 1, 6, 6, generator=seeded())
    views = [torch.rot90(base, k, (-2, -1)) for base in (image, image.flip(-1)) for k in range(4)]
    preset = AugmentationPreset(flips=True)
    batch = image.expand(200, -1, -1, -1)
    changed, _ = apply_changes(batch, None, draw_changes(preset, 200, 2, seeded()))
    seen = [
        next(number for number, view in enumerate(views) if torch.equal(one, view[0]))
        for one in changed
    ]
    assert sorted(set(seen)) == list(range(8))


def test_an_oblong_image_is_turned_and_not_sheared() -> None:
    # A square drawn in an oblong image keeps its area and stays a square.
    image = torch.zeros(1, 1, 60, 120)
    image[..., 20:40, 50:70] = 1
    angle = torch.tensor(torch.pi / 4)
    changed, _ = apply_changes(image, None, AugmentationParameters(affine=turned(angle)))
    inside = changed[0, 0] > 0.5
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    assert int(inside.sum()) == pytest.approx(400, rel=0.05)
    diagonal = 20 * 2**0.5
    assert float(rows) == pytest.approx(diagonal, abs=2)
    assert float(columns) == pytest.approx(diagonal, abs=2)


def test_a_turn_by_ninety_degrees_is_exact() -> None:
    image = torch.rand(1, 3, 9, 9, generator=seeded())
    angle = torch.tensor(torch.pi / 2)
    changed, _ = apply_changes(image, None, AugmentationParameters(affine=turned(angle)))
    torch.testing.assert_close(changed, torch.rot90(image, 1, (-2, -1)), rtol=0, atol=1e-4)


def test_a_translation_is_a_part_of_the_size() -> None:
    image = torch.rand(1, 1, 10, 20, generator=seeded())
    affine = torch.tensor([[[1.0, 0.0, 2 * 0.1], [0.0, 1.0, 0.0]]])  # a tenth of 20 columns
    changed, _ = apply_changes(image, None, AugmentationParameters(affine=affine))
    torch.testing.assert_close(changed[..., :-2], image[..., 2:], rtol=0, atol=1e-5)


def test_drawn_turns_are_rotations_within_their_range() -> None:
    preset = AugmentationPreset(rotation=10)
    affine = draw_changes(preset, 500, 3, seeded()).affine
    assert affine is not None
    turn = affine[:, :, :3]
    identity = torch.eye(3).expand(500, -1, -1)
    torch.testing.assert_close(turn @ turn.mT, identity, rtol=0, atol=1e-5)
    # Three turns of at most 10 degrees make one of at most 30.
    angles = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert 5 < float(angles.max()) <= 30


def test_grey_values_change_by_what_was_drawn() -> None:
    image = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    deviation = (1 / 6) ** 0.5
    curve, _ = apply_changes(image, None, AugmentationParameters(gamma=torch.tensor([2.0])))
    torch.testing.assert_close(curve.flatten(), torch.tensor([0.0, 0.25, 1.0]))
    gain, _ = apply_changes(image, None, AugmentationParameters(gain=torch.tensor([1.5])))
    torch.testing.assert_close(gain.flatten(), torch.tensor([0.0, 0.75, 1.5]))
    offset, _ = apply_changes(image, None, AugmentationParameters(offset=torch.tensor([-0.5])))
    torch.testing.assert_close(offset, image - 0.5 * deviation)


def test_noise_has_the_drawn_deviation() -> None:
    images = torch.randn(2, 1, 100, 100, generator=seeded()) * 7
    drawn = AugmentationParameters(noise=torch.tensor([0.0, 0.1]), noise_seed=3)
    changed, _ = apply_changes(images, None, drawn)
    assert torch.equal(changed[0], images[0])
    assert float((changed - images)[1].std()) == pytest.approx(0.7, rel=0.03)


@pytest.mark.gpu
def test_the_geometry_is_the_same_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    for dimensions in (2, 3):
        images, masks = batch_of(dimensions)
        drawn = draw_changes(PRESETS["dermoscopy"], len(images), dimensions, seeded())
        here, here_masks = apply_changes(images, masks, drawn)
        there, there_masks = apply_changes(images.cuda(), masks.cuda(), drawn)
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-3)
        assert here_masks is not None
        assert there_masks is not None
        assert (there_masks.cpu() == here_masks).float().mean() > 0.999


def test_an_angle_is_one_of_the_body_and_not_of_its_voxels() -> None:
    """A slice thickness of 8 mm: ten degrees of the body, not the 54 of its voxels."""
    preset = AugmentationPreset(rotation=10)
    spacings = torch.tensor([[1.0, 1.0, 8.0]]).repeat(50, 1)
    drawn = draw_changes(preset, 50, 3, seeded(), spacings)
    assert drawn.affine is not None
    size = torch.tensor([8.0, 1.0, 1.0])  # x before y before z: the last axis of the array first
    body = size[None, :, None] * drawn.affine[:, :, :3] / size[None, None, :]
    identity = torch.eye(3).expand(50, 3, 3)
    torch.testing.assert_close(body @ body.transpose(1, 2), identity, atol=1e-5, rtol=0)
    cosine = (body.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert float(torch.rad2deg(torch.acos(cosine)).max()) < 18  # three turns of ten degrees


def test_voxels_that_are_cubes_turn_as_ever_to_the_last_bit() -> None:
    spacings = torch.full((6, 3), 0.7)
    plain = draw_changes(PRESETS["mr"], 6, 3, seeded())
    spaced = draw_changes(PRESETS["mr"], 6, 3, seeded(), spacings)
    assert plain.affine is not None
    assert spaced.affine is not None
    assert torch.equal(plain.affine, spaced.affine)


def test_the_air_around_a_head_stays_at_zero_when_grey_values_are_bent() -> None:
    images = torch.randn(4, 1, 8, 8, generator=seeded(2))
    images[:, :, :, :3] = 0
    bent, _ = apply_changes(images, None, AugmentationParameters(gamma=torch.full((4,), 1.35)))
    assert (bent[:, :, :, :3] == 0).all()
    assert not torch.equal(bent, images)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_rare_changes_leave_the_other_images_as_they_are(dimensions: int) -> None:
    images, _ = batch_of(dimensions)
    befallen = dict.fromkeys(NNUNET, 0)
    for seed in range(12):
        for change in draw_rare(len(images), seeded(seed)):
            befallen[change.kind] += len(change.places)
            changed = apply_rare(images, [change])
            others = [at for at in range(len(images)) if at not in change.places.tolist()]
            assert torch.equal(changed[others], images[others])
            assert not torch.equal(changed[change.places], images[change.places])
            assert changed.isfinite().all()
    assert all(befallen.values()), befallen


def test_a_bent_grey_curve_keeps_mean_and_deviation_and_a_stretched_one_its_range() -> None:
    images, _ = batch_of(3)
    everywhere = torch.arange(len(images))
    amounts = torch.full((len(images),), 1.25)
    for kind in ("gamma", "inverted-gamma", "contrast"):
        known = tuple(amounts.tolist())
        changed = apply_rare(images, [RareChange(kind, everywhere, amounts, known)])
        before, after = images.flatten(1), changed.flatten(1)
        if kind == "contrast":
            assert bool((after.amax(1) <= before.amax(1)).all())
            continue
        torch.testing.assert_close(after.mean(1), before.mean(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(after.std(1), before.std(1), rtol=1e-3, atol=1e-4)


def test_a_blur_is_that_of_a_gaussian() -> None:
    image = torch.zeros(1, 1, 9, 9, 9)
    image[..., 4, 4, 4] = 1
    sigma = torch.tensor([0.8])
    blurred = apply_rare(image, [RareChange("blur", torch.tensor([0]), sigma, (0.8,))])
    steps = torch.arange(-2, 3)
    weights = torch.exp(-0.5 * (steps / 0.8) ** 2)
    weights = weights / weights.sum()
    torch.testing.assert_close(blurred[0, 0, 4, 4, 2:7], weights * weights[2] ** 2)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)


def test_presets_that_mirror_are_those_that_a_study_may_test_with_mirrored_images() -> None:
    mirroring = {name for name, preset in PRESETS.items() if preset.flips or preset.mirrors}
    assert mirroring == set(MIRRORING)
