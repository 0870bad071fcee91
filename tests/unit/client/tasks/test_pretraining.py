"""Pretraining: what is hidden, what counts, and a federation of sites that have no labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from wardround.client.data.augmentation.views import two_views
from wardround.client.data.batch import Batch
from wardround.client.tasks.pretraining import confused, hidden_parts, unrestored
from wardround.client.tasks.registry import task_of
from wardround.client.training.losses.pretraining import masked_l1, nt_xent
from wardround.common.errors import InputError, StudyError
from wardround.common.metrics.noised.decoding import summarise_noised
from wardround.common.metrics.noised.encoding import (
    NORM_BOUND,
    NoisedSums,
    encode_loss,
    length_of,
    scaled,
)
from wardround.common.metrics.pretraining import PretrainingSums
from wardround.common.metrics.sums import MetricSums, merge, summarise
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import head_names
from wardround.common.models.start import WeightsOrigin, match
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study
from wardround.common.study.sections.training import MaskingSection
from wardround.server.checkpoints.history import read_records
from wardround.server.checkpoints.store import CheckpointStore
from wardround.simulations.adversaries.roles import cast_roles
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation

ERROR = "pretraining-error"


def study_of(**sections):
    content = {
        "study": {"name": "unlabelled", "task": "pretraining"},
        "data": {"size": [16, 16], "channels": ["image"]},
        "model": {"network": "small-cnn", "features": [8, 16]},
        "training": {"learning_rate": 0.01, "local_epochs": 4, "batch_size": 8},
        "federation": {"rounds": 3, "minimum_sites": 2},
    }
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return parse_study(content)


def test_as_many_parts_are_hidden_as_the_study_says_of_each_image_other_ones():
    masking, generator = MaskingSection(fraction=0.25, patch=4), torch.Generator().manual_seed(0)

    drawn = hidden_parts(20, (16, 16), masking, generator)

    assert drawn.shape == (20, 1, 16, 16)
    assert drawn.flatten(1).sum(1).tolist() == [64.0] * 20
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 10
    assert (drawn.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).std(4) == 0).all(), "whole squares"


def test_whoever_is_measured_has_the_same_parts_hidden_in_any_batch():
    masking = MaskingSection()
    alone, together = (hidden_parts(n, (9, 7, 8), masking, None) for n in (1, 5))

    assert all(torch.equal(one, alone[0]) for one in together)
    assert 0 < alone.mean() < 1


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_something_is_always_hidden_and_something_seen(fraction):
    parts = hidden_parts(3, (8, 8), MaskingSection(fraction=fraction, patch=4), None)

    assert ((parts.flatten(1).sum(1) > 0) & (parts.flatten(1).sum(1) < 64)).all()


def test_the_network_sees_nothing_of_what_is_hidden_and_is_told_it_as_target():
    study, images = study_of(), torch.rand(2, 1, 16, 16)
    batch = task_of(study).hide(Batch(images, None, torch.zeros(2, 0)), study, None)

    hidden = batch.targets[:, -1:] > 0
    assert torch.equal(batch.targets[:, :1], images)
    assert torch.equal(batch.images[~hidden], images[~hidden])
    other = images.where(~hidden, torch.rand(2, 1, 16, 16))
    again = task_of(study).hide(Batch(other, None, torch.zeros(2, 0)), study, None)
    assert torch.equal(again.images, batch.images)


def test_only_hidden_pixels_count_in_loss_and_error():
    images, hidden = torch.rand(3, 1, 8, 8), torch.zeros(3, 1, 8, 8)
    hidden[:, :, :4] = 1
    targets = torch.cat([images, hidden], 1)
    wrong_elsewhere = images + (1 - hidden) * 9

    assert masked_l1(wrong_elsewhere, targets, None).tolist() == [0.0] * 3
    assert masked_l1(images + hidden, targets, None).tolist() == pytest.approx([1.0] * 3)
    assert unrestored(wrong_elsewhere, targets).tolist() == [0.0] * 3
    mean = (images * hidden).flatten(1).sum(1) / 32
    as_good_as_the_mean = unrestored(mean.reshape(3, 1, 1, 1).expand_as(images), targets)
    assert as_good_as_the_mean.tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert unrestored(images * 1e9, targets).tolist() == [1.0] * 3


def write_site(folder, seed):
    """Write a site of striped pictures whose manifest has no column of labels."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    rows = ["patient,image"]
    for number in range(24):
        stripes = 100 + 80 * np.sin(np.arange(16) / 2 + random.uniform(0, 6))
        Image.fromarray(np.tile(stripes, (16, 1)).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"p{number},{number}.png")
    (folder / "manifest.csv").write_text("\n".join(rows))
    (folder / "site.toml").write_text(f'name = "{folder.name}"')
    (folder / "policy.toml").write_text(
        'approved = "any"\nsimulated = true\nprivacy_required = false\n'
        "smallest_cohort = 2\nsmallest_cell = 1\n"
    )
    return folder


@pytest.mark.parametrize(
    ("privacy", "loss"),
    [
        ({}, "masked-l1"),
        ({}, "nt-xent"),
        pytest.param(
            {"mode": "patient", "noise_multiplier": 4.0}, "masked-l1", marks=pytest.mark.long
        ),
    ],
)
def test_hospitals_without_labels_pretrain_together(tmp_path, privacy, loss):
    model = {"normalisation": "group"}  # raw greys would leave every ReLU of a few steps dead
    study = study_of(privacy=privacy, training={"loss": loss}, model=model)
    folders = [write_site(tmp_path / name, seed) for seed, name in enumerate("ab")]

    with open_grid(folders, study, Machine("cpu", "in-process", threads=1)) as grid:
        run_federation(grid, study, tmp_path / "run")

    records = list(read_records(CheckpointStore(tmp_path / "run").history_path))
    errors = [
        value.value
        for record in records
        for measurement in record.measurements
        for value in measurement.values
        if value.metric == ERROR
    ]
    assert errors, "measured in a private study too"
    if not privacy:
        assert errors[-1] < errors[0]


def test_sums_merge_and_shares_that_cannot_be_are_refused():
    study = study_of()
    one, two = (
        PretrainingSums(np.array([s.sum()]), np.array([(s**2).sum()]), np.array([float(len(s))]))
        for s in (np.array([0.2, 0.4]), np.array([0.9]))
    )
    both = merge(MetricSums(2, 1.0, one), MetricSums(1, 1.0, two))
    found = {v.metric: v for v in summarise(both, study)}

    assert found[ERROR].value == pytest.approx(0.5)
    assert found[ERROR].standard_error == pytest.approx(np.std([0.2, 0.4, 0.9]) / 3**0.5)
    assert one.cells_behind(ERROR).tolist() == [2], "a mean of few is not told where sums are not"
    good = one.to_arrays()
    assert PretrainingSums.from_arrays(good, 2).to_arrays() == good
    for name, value in (("errors", 2.5), ("squares", 1.0), ("squares", 0.01), ("counted", 3.0)):
        with pytest.raises(InputError, match=name):
            PretrainingSums.from_arrays({**good, name: np.array([value])}, 2)


def test_what_a_patient_adds_to_a_noised_measurement_is_bounded_whatever_the_network_says():
    study, images = study_of(), torch.rand(4, 1, 16, 16)
    batch = task_of(study).hide(Batch(images, None, torch.zeros(4, 0)), study, None)
    outputs = torch.stack([images[0], images[1] * torch.nan, images[2] * 1e30, images[3] * 0])
    parts = task_of(study).bounded(outputs, batch.targets, study)

    vectors = scaled(np.concatenate([encode_loss(np.full(4, 9.0)), parts], axis=1), study)

    assert vectors.shape == (4, length_of(study))
    assert (np.linalg.norm(vectors, axis=1) <= NORM_BOUND + 1e-9).all()
    found = {v.metric: v.value for v in summarise_noised(NoisedSums(vectors[:1].sum(0)), study)}
    assert found[ERROR] == pytest.approx(0.0)
    assert parts[1].tolist() == [1.0, 0.0], "no number counts as the worst"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"classes": ["a", "b"]}}, "reads no label"),
        ({"data": {"covariates": [{"name": "age"}]}}, "of images"),
        ({"training": {"class_weights": "balanced"}}, "has none: remove"),
        ({"training": {"masking": {"patch": 9}}}, "at most 8"),
        ({"training": {"adversarial": {}}}, "classified wrongly"),
        ({"training": {"loss": "cross-entropy"}}, "choose one of masked-l1, nt-xent"),
        ({"training": {"loss": "nt-xent", "masking": {}}}, "hides parts, and"),
        ({"training": {"loss": "nt-xent", "batch_size": 1}}, "has one: raise it"),
        (
            {"training": {"loss": "nt-xent"}, "model": {"network": "unet"}},
            "one feature vector an image, which unet",
        ),
        (
            {"training": {"loss": "nt-xent"}, "privacy": {"mode": "patient"}},
            "compares the patients of a batch",
        ),
        ({"federation": {"strategy": "moon"}}, "feature vector"),
        ({"model": {"network": "mlp", "features": [8]}}, "does not do pretraining"),
        ({"study": {"task": "classification"}}, "data.classes is missing"),
        ({"evaluation": {"pack": ["intervals"]}}, "evaluation.pack is for"),
        ({"evaluation": {"subgroups": ["sex"]}}, "is not measured"),
    ],
)
def test_what_does_not_fit_pretraining_is_refused_in_words(sections, said):
    with pytest.raises(StudyError, match=said):
        study_of(**sections)


def test_masking_is_refused_where_nothing_is_pretrained():
    with pytest.raises(StudyError, match=r"training\.masking is for"):
        study_of(
            study={"task": "classification"},
            data={"classes": ["a", "b"]},
            training={"masking": {}},
        )


def test_a_hospital_reads_that_no_label_is_asked_for():
    text = " ".join(explain_study(study_of()).split())

    assert "can restore hidden parts of its images, which needs no label of them" in text


def test_labels_that_are_not_read_cannot_be_turned_round():
    study = study_of(simulation={"adversary": [{"kind": "label-flip", "count": 1}]})

    with pytest.raises(StudyError, match="pretraining reads none"):
        cast_roles(study, ("a", "b"))


def test_two_views_of_an_image_differ_and_are_the_same_ones_for_whoever_is_measured():
    images = torch.rand(5, 2, 16, 16)

    drawn = two_views(images, torch.Generator().manual_seed(0))
    alone, together = two_views(images[3:4], None), two_views(images, None)

    assert drawn.shape == (5, 4, 16, 16)
    assert not torch.allclose(drawn[:, :2], drawn[:, 2:], atol=0.05)
    assert torch.equal(alone[0], together[3])
    assert two_views(torch.rand(2, 1, 8, 8, 8), None).shape == (2, 2, 8, 8, 8)


def test_the_loss_is_the_cross_entropy_of_finding_the_other_view():
    outputs = torch.randn(3, 8)
    views = torch.nn.functional.normalize(torch.cat([outputs[:, :4], outputs[:, 4:]]), dim=1)
    expected = []
    for place in range(6):
        scores = [views[place] @ views[other] / 0.5 for other in range(6) if other != place]
        own = views[place] @ views[(place + 3) % 6] / 0.5
        expected.append(torch.logsumexp(torch.stack(scores), 0) - own)
    wanted = (torch.stack(expected[:3]) + torch.stack(expected[3:])) / 2

    torch.testing.assert_close(nt_xent(outputs, torch.zeros(3, 0), None), wanted)
    assert nt_xent(outputs[:1], torch.zeros(1, 0), None).tolist() == [0.0]


def test_the_error_of_views_is_the_share_of_others_that_look_more_alike():
    directions = torch.eye(4)
    told_apart = torch.cat([directions, directions], 1)
    one_for_all = torch.ones(4, 8)
    swapped = torch.cat([directions, directions[[1, 0, 2, 3]]], 1)

    assert confused(told_apart).tolist() == [0.0] * 4
    assert confused(one_for_all).tolist() == pytest.approx([0.5] * 4)
    assert confused(swapped).tolist() == pytest.approx([2 / 3, 2 / 3, 0, 0])
    assert confused(torch.randn(1, 8)).tolist() == [0.0]


@pytest.mark.parametrize("network", ["small-cnn", "resnet18"])
def test_a_classifier_starts_from_an_encoder_that_told_views_apart(network):
    chosen = {"network": network, "features": [8, 16] if network == "small-cnn" else None}
    before = study_of(model=chosen, training={"loss": "nt-xent"})
    after = parse_study(
        {
            "study": {"name": "told", "task": "classification"},
            "data": {"size": [16, 16], "channels": ["image"], "classes": ["a", "b"]},
            "model": chosen,
        }
    )
    pretrained, classifier = build_network(before, 0), build_network(after, 1)
    assert pretrained(torch.rand(3, 2, 16, 16)).shape == (3, 128)
    assert pretrained(torch.rand(3, 1, 16, 16)).shape == (3, 64), "one view is as good"

    origin = WeightsOrigin(model="first", task="pretraining")
    saved = pretrained.state_dict()
    start = match(classifier.state_dict(), saved, origin, "classification", head_names(classifier))

    assert {name.rpartition(".")[0] for name in head_names(classifier)} == set(start.left)


def test_the_best_round_of_telling_views_apart_is_that_of_the_least_loss():
    """A network as it is drawn has a small error: it was kept, and nothing that was learnt."""
    assert study_of(training={"loss": "nt-xent"}).metric == "loss"
    asked = study_of(training={"loss": "nt-xent"}, evaluation={"metric": ERROR})
    assert asked.metric == ERROR
    assert study_of().metric == ERROR


def test_a_hospital_reads_that_views_are_told_apart():
    text = " ".join(explain_study(study_of(training={"loss": "nt-xent"})).split())

    assert "can tell two changed views of each image from those of its other images" in text
