"""Every method gives the sum that one backward pass a patient gives."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients import ghost_layers
from wardround.client.privacy.gradients.choice import exact_method
from wardround.client.privacy.gradients.clipped_sum import METHODS, clipped_gradient_sum
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch, PatientIndex
from wardround.client.training.losses.registry import build_loss
from wardround.common.errors import RunError, StudyError
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study

Sums = dict[str, Tensor]
NARROW = {
    "unet": [4, 6, 8],
    "basic-unet": [4, 4, 4, 6, 6, 4],
    "attention-unet": [4, 6],
    "dynunet": [4, 6, 8],
    "small-cnn": [4, 6],
    "mlp": [8],
}
DEAR = tuple(name for name in PRIVATE_NETWORKS if name not in (*NARROW, "segresnet"))
COUNTS = (2, 1, 3)
NOT_FINITE = {"nan": torch.nan, "infinity": torch.inf, "huge": 1e30}


def study_for(name: str, dimensions: int, **model: Any) -> Study:
    entry = NETWORKS[name]
    data: dict[str, Any] = {"classes": ["a", "b", "c"]}
    if name in NARROW:
        model["features"] = NARROW[name]
    if dimensions == 0:
        data |= {"kind": "table", "channels": [], "covariates": [{"name": "age"}, {"name": "bmi"}]}
    else:
        widths = tuple(NARROW[name]) if name in NARROW else None
        side = max(entry.minimum_for(widths), 4)
        data |= {"channels": ["t1", "t2"], "dimensions": dimensions, "size": [side] * dimensions}
        if name not in DEAR:
            data["size"][-1] += entry.divisor_for(widths)
    content = {
        "study": {"name": "private", "task": entry.tasks[0]},
        "data": data,
        "model": {"network": name, **model},
    }
    return parse_study(content)


def private_network(study: Study) -> nn.Module:
    """The study's network in double precision, without anything random."""
    network = build_network(study, 1).double().train()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if hasattr(layer, "drop_connect_rate"):
            layer.drop_connect_rate = 0.0
    return network


def batch_for(study: Study, counts: tuple[int, ...] = COUNTS) -> PatientBatch:
    torch.manual_seed(5)
    images, covariates, masks = None, None, ()
    if study.input_size is not None:
        images = torch.randn(sum(counts), study.data.planes, *study.input_size).double()
        masks = study.input_size if study.study.task == "segmentation" else ()
    if study.data.covariates:
        covariates = torch.randn(sum(counts), study.data.covariate_width).double()
    targets = torch.randint(0, 3, (sum(counts), *masks))
    return PatientBatch(Batch(images, covariates, targets), counts)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, in the precision of the logits, which a study's is not."""
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)


def distance(found: Sums, expected: Sums) -> float:
    assert list(found) == list(expected)
    apart = sum(float((found[n] - e).double().square().sum()) for n, e in expected.items())
    whole = sum(float(e.double().square().sum()) for e in expected.values())
    assert whole > 0
    return (apart / whole) ** 0.5


def typical_norm(network: nn.Module, patients: PatientBatch) -> float:
    """A clip norm that some patients are above."""
    standalone = loop_clipped_sum(network, patients.slice(0, 1), cross_entropy, 1e9)
    return float(torch.cat([part.flatten() for part in standalone.values()]).norm())


def entries() -> Iterator[Any]:
    for name, entry in PRIVATE_NETWORKS.items():
        for dimensions in NETWORKS[name].dimensions:
            dear = name in DEAR or (name, dimensions) == ("basic-unet", 3)
            # A volume through one of these takes long; all normalisations are tried elsewhere.
            for normalisation in entry.normalisations[: 1 if dear else None]:
                if PRIVATE_NETWORKS[name].method_for(dimensions) == "loop":
                    continue
                yield pytest.param(
                    name,
                    dimensions,
                    normalisation,
                    id=f"{name}-{dimensions}d-{normalisation}",
                    marks=[pytest.mark.long] if dear else [],
                )


@pytest.mark.parametrize(("name", "dimensions", "normalisation"), list(entries()))
def test_the_method_of_every_private_network_gives_the_sum_of_the_loop(
    name: str, dimensions: int, normalisation: str
) -> None:
    study = study_for(name, dimensions, normalisation=normalisation)
    # A volume through a large network takes long: two patients, one of whom has two examples.
    counts = (1, 2) if name in DEAR and dimensions == 3 else COUNTS
    network, patients = private_network(study), batch_for(study, counts)
    clip = typical_norm(network, patients)
    method = PRIVATE_NETWORKS[name].method_for(dimensions)
    expected = loop_clipped_sum(network, patients, cross_entropy, clip)
    found = clipped_gradient_sum(network, patients, cross_entropy, clip, method, 16)
    # In double precision: some of these networks blow up the rounding of single precision.
    assert distance(found, expected) < 1e-10


LEARNING = ("small-cnn", "mlp", "unet", "basic-unet", "segresnet", "dynunet", "resnet18")


@pytest.mark.parametrize("gradients", ["auto", "opacus"])
@pytest.mark.parametrize("name", LEARNING)
def test_an_activation_that_learns_trains_privately_also_where_a_block_calls_it_twice(
    name: str, gradients: str
) -> None:
    normalisation = PRIVATE_NETWORKS[name].normalisations[0]
    study = study_for(name, 2, activation="prelu", normalisation=normalisation)
    private = {"privacy.mode": "patient", "privacy.gradients": gradients}
    if gradients == "opacus" and PRIVATE_NETWORKS[name].opacus != "hooks":
        with pytest.raises(StudyError, match=rf"'opacus' does not fit .*{name}"):
            with_changes(study, private)
        return
    study = with_changes(study, private)
    network, patients = private_network(study), batch_for(study)
    clip = typical_norm(network, patients)
    expected = loop_clipped_sum(network, patients, cross_entropy, clip)
    method = exact_method(study, network.float())
    found = clipped_gradient_sum(network.double(), patients, cross_entropy, clip, method, 16)
    assert distance(found, expected) < 1e-10


@pytest.mark.parametrize("name", [name for name in PRIVATE_NETWORKS if name not in DEAR])
@pytest.mark.parametrize("counts", [(1, 1, 1, 1), COUNTS])
def test_in_single_precision_the_sum_is_the_loops_to_a_ten_thousandth(
    name: str, counts: tuple[int, ...]
) -> None:
    entry = PRIVATE_NETWORKS[name]
    study = study_for(name, 2, normalisation=entry.normalisations[0])
    network, double = private_network(study).float(), batch_for(study, counts)
    assert double.examples.images is not None
    patients = PatientBatch(
        Batch(double.examples.images.float(), None, double.examples.targets), counts
    )
    loss = build_loss(study, None, torch.device("cpu")).per_sample
    clip = typical_norm(network, patients)
    expected = loop_clipped_sum(network, patients, loss, clip)
    found = clipped_gradient_sum(network, patients, loss, clip, entry.method, 16)
    assert distance(found, expected) < 1e-4


def test_no_private_network_mixes_the_patients_of_a_batch() -> None:
    for name, entry in PRIVATE_NETWORKS.items():
        allowed = {"default", *NETWORKS[name].normalisations} - {"batch"}
        assert set(entry.normalisations) <= allowed
        assert {entry.method_for(n) for n in (0, 2, 3)} <= set(METHODS)
        study = study_for(name, NETWORKS[name].dimensions[-1])
        own_is_batch = any(
            "BatchNorm" in type(m).__name__ for m in build_network(study, 0).modules()
        )
        assert ("default" in entry.normalisations) is not own_is_batch


# Ways in which Opacus finds no gradient: a layer adds in place, or expanded weights know no PReLU.
UNABLE = {("opacus-hooks", "segresnet"), ("opacus-functorch", "segresnet"), ("opacus-ew", "unet")}


def able_network(method: str) -> str:
    """A network of which a method finds the gradients."""
    return next(name for name in ("unet", "segresnet") if (method, name) not in UNABLE)


@pytest.mark.parametrize(("method", "name"), sorted(UNABLE))
def test_a_network_of_which_a_way_finds_no_gradient_is_refused_in_words(
    method: str, name: str
) -> None:
    study = study_for(name, 2)
    with pytest.raises(RunError, match=r"finds no gradient .* set privacy\.gradients = 'loop'"):
        clipped_gradient_sum(
            private_network(study), batch_for(study), cross_entropy, 1.0, method, 100
        )


@pytest.mark.parametrize("value", list(NOT_FINITE))
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method in METHODS
        for name in ("small-cnn", "unet", "segresnet")
        if (method, name) not in UNABLE
    ],
)
def test_a_patient_whose_gradient_is_no_number_counts_nothing(
    name: str, value: str, method: str
) -> None:
    study = study_for(name, 2)
    network = private_network(study).float()
    double = batch_for(study, (1, 2, 1, 1))
    assert double.examples.images is not None
    images = double.examples.images.float()
    images[2] = NOT_FINITE[value]
    patients = PatientBatch(Batch(images, None, double.examples.targets), double.counts)
    keep = torch.tensor([0, 3, 4])
    others = PatientBatch(Batch(images[keep], None, double.examples.targets[keep]), (1, 1, 1))
    expected = loop_clipped_sum(network, others, cross_entropy, 0.1)
    found = clipped_gradient_sum(network, patients, cross_entropy, 0.1, method, 16)
    assert all(torch.isfinite(part).all() for part in found.values())
    apart = sum(float((found[n] - e).square().sum()) for n, e in expected.items()) ** 0.5
    # A normalisation shrinks 1e30 to a usual number: then the patient is one like any other.
    assert apart <= (0.1 * (1 + 1e-4) if value == "huge" else 1e-6)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("microbatch", [1, 2, 4, 7])
def test_the_microbatch_does_not_change_the_sum(method: str, microbatch: int) -> None:
    study = study_for(able_network(method), 2)
    network, patients = private_network(study), batch_for(study, (1, 3, 2, 1, 1))
    whole = clipped_gradient_sum(network, patients, cross_entropy, 0.1, method, 100)
    pieces = clipped_gradient_sum(network, patients, cross_entropy, 0.1, method, microbatch)
    assert distance(pieces, whole) < 1e-12


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    scale=st.floats(1e-3, 1e3),
    clip=st.floats(1e-3, 10.0),
    method=st.sampled_from(sorted(METHODS)),
)
def test_taking_a_patient_away_moves_the_sum_by_at_most_the_clip_norm(
    counts: list[int], scale: float, clip: float, method: str
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    images = torch.randn(sum(counts), 1, 4, 4) * scale
    targets = torch.randint(0, 3, (sum(counts),))
    patients = PatientBatch(Batch(images, None, targets), tuple(counts))
    with_all = clipped_gradient_sum(network, patients, cross_entropy, clip, method, 100)
    without = clipped_gradient_sum(
        network, patients.slice(1, len(counts)), cross_entropy, clip, method, 100
    )
    moved = sum(float((with_all[n] - w).square().sum()) for n, w in without.items()) ** 0.5
    assert moved <= clip * (1 + 1e-4)


class Residual(nn.Module):
    """What breaks hooks elsewhere: an activation and a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.GroupNorm(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = F.relu_(self.norm(self.first(images)))
        made = self.second(made)
        made += images
        return F.leaky_relu_(made)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 9)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 8, 7)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=2, bias=False), (2, 8, 7)),
    "uneven": (lambda: nn.Conv2d(2, 3, (3, 1), stride=(1, 2), padding=(1, 0)), (2, 6, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 6, 6)),
    "depthwise": (lambda: nn.Conv3d(3, 3, 3, groups=3, padding=1), (3, 4, 4, 5)),
    "same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 6, 7)),
    "valid": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 6, 7)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 6, 7)),
    "replicate": (lambda: nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 4, 4, 5)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular"), (2, 6, 7)),
    "pointwise": (lambda: nn.Conv3d(2, 3, 1, stride=2), (2, 4, 5, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), (2, 4, 5)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2, bias=False), (2, 3, 4, 3)),
    "transposed in groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (4, 4, 5)),
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear on tokens": (lambda: nn.Linear(5, 3, bias=False), (7, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 5, 5)),
    "instance norm": (lambda: nn.InstanceNorm3d(3, affine=True), (3, 4, 4, 4)),
    "layer norm": (lambda: nn.LayerNorm(6), (5, 6)),
    "layer norm of images": (lambda: nn.LayerNorm((4, 5), bias=False), (2, 4, 5)),
    "prelu": (nn.PReLU, (3, 4, 4)),
    "prelu by channel": (lambda: nn.PReLU(3), (3, 4, 4, 4)),
    "in place": (Residual, (2, 6, 6)),
}


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (
        (outputs.flatten(1) - targets[:, None])
        .pow(2)
        .mul(torch.arange(1, 1 + outputs[0].numel()))
        .mean(1)
    )


@pytest.mark.parametrize("route", ["gradients", "ghost norms"])
@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 2, 2), COUNTS])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_every_layer_of_a_rule_gives_the_sum_of_the_loop(
    kind: str, counts: tuple[int, ...], route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = route == "ghost norms"
    monkeypatch.setattr(
        ghost_layers, "prefers_ghost", lambda work: wanted and work.ghost_cost() < float("inf")
    )
    torch.manual_seed(2)
    make, shape = LAYERS[kind]
    network = make().double()
    examples = Batch(torch.randn(sum(counts), *shape).double(), None, torch.randn(sum(counts)))
    patients = PatientBatch(examples, counts)
    for clip in (1e9, 1.0):
        expected = loop_clipped_sum(network, patients, squares, clip)
        found = clipped_gradient_sum(network, patients, squares, clip, "ghost", 100)
        assert distance(found, expected) < 1e-12


@pytest.mark.parametrize("gradients_fit", [True, False])
def test_one_gradient_a_call_is_what_one_convolution_for_all_gives(
    gradients_fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.client.privacy.gradients import weight_products

    monkeypatch.setattr(weight_products, "_NUMBERS_IN_CACHE", 10**9 if gradients_fit else 0)
    network = nn.Conv2d(2, 3, 3).double()
    patients = PatientBatch(Batch(torch.randn(6, 2, 5, 5).double(), None, torch.randn(6)), COUNTS)
    expected = loop_clipped_sum(network, patients, squares, 1.0)
    found = clipped_gradient_sum(network, patients, squares, 1.0, "ghost", 100)
    assert distance(found, expected) < 1e-12


class Twice(nn.Module):
    """Uses one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        made: Tensor = self.layer(self.layer(rows))
        return made


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    return network


class Loose(nn.Sequential):
    """Has a parameter outside the layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 3))
        self.shift = nn.Parameter(torch.zeros(3))


class Accumulated(nn.Module):
    """Lays the examples out on another axis than the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 3)

    def forward(self, rows: Tensor) -> Tensor:
        made: Tensor = self.layer(rows.reshape(-1, 1))
        return made.reshape(len(rows), -1)


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "a layer used twice": Twice,
    "shared weights": tied,
    "a parameter outside the layers": Loose,
    "examples on another axis": Accumulated,
    "batch normalisation": lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
    "running statistics": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.InstanceNorm1d(1, affine=True, track_running_stats=True)
    ),
    "an unknown layer": lambda: nn.Bilinear(3, 3, 3),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_no_rule_covers_is_refused_and_the_network_left_as_it_was(case: str) -> None:
    network = REFUSED[case]()
    patients = PatientBatch(Batch(torch.randn(4, 3), None, torch.randn(4)), (1, 1, 2))
    with pytest.raises(RunError):
        clipped_gradient_sum(network, patients, squares, 1.0, "ghost", 100)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any("forward" in vars(layer) for layer in network.modules())


@pytest.mark.parametrize("method", list(METHODS))
def test_a_network_is_left_as_it_was(method: str) -> None:
    study = study_for(able_network(method), 2)
    network, patients = private_network(study), batch_for(study)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    clipped_gradient_sum(network, patients, cross_entropy, 1.0, method, 100)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any("forward" in vars(layer) for layer in network.modules())


@pytest.mark.parametrize("method", list(METHODS))
def test_nobody_makes_zeros(method: str) -> None:
    network = nn.Linear(3, 2)
    nobody = PatientBatch(Batch(torch.randn(0, 3), None, torch.randn(0)), ())
    found = clipped_gradient_sum(network, nobody, squares, 1.0, method, 4)
    assert {name: part.abs().sum() for name, part in found.items()} == {"weight": 0, "bias": 0}


def test_parameters_that_the_loss_does_not_use_get_zeros_and_frozen_ones_nothing() -> None:
    network = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    network["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    network.forward = lambda rows: network["frozen"](network["used"](rows))  # type: ignore[method-assign]
    patients = PatientBatch(Batch(torch.randn(3, 3), None, torch.randn(3)), (1, 2))
    expected = loop_clipped_sum(network, patients, squares, 1.0)
    found = clipped_gradient_sum(network, patients, squares, 1.0, "ghost", 4)
    assert distance(found, expected) < 1e-5
    assert not found["idle.weight"].any()
    assert not any(name.startswith("frozen") for name in found)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    patients = PatientBatch(Batch(torch.randn(1, 3), None, torch.randn(1)), (1,))
    with pytest.raises(
        StudyError, match="ghost, loop, opacus-ew, opacus-functorch, opacus-hooks, vmap"
    ):
        clipped_gradient_sum(nn.Linear(3, 2), patients, squares, 1.0, "gost", 4)


def test_a_patients_examples_are_stacked_with_zeros_for_those_it_lacks() -> None:
    patient_index = PatientIndex((2, 1))
    rows = torch.tensor([1.0, 2.0, 3.0])
    assert patient_index.stacked(rows).tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert patient_index.total(rows).tolist() == [3.0, 3.0]
    assert patient_index.spread(torch.tensor([5.0, 7.0])).tolist() == [5.0, 5.0, 7.0]
