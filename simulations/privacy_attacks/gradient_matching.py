"""Searches for the image whose gradient is the one that was seen: deep leakage from gradients.

Two published searches, each best where the other is weak. Zhu et al. 2019 minimise the squared
distance of the gradients with L-BFGS: exact for a smooth network, soon stuck with ReLU or
max-pooling. Geiping et al. 2020 minimise one minus their cosine, and the total variation of the
image, along the signs of the slope: slower, and good with ReLU. The label is read off the last
layer first (Zhao et al. 2020, iDLG).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from wardround.simulations.privacy_attacks.observation import Gradients, SampleLosses

_LBFGS_BLOCK = 20  # iterations between two looks at the clock
_ADAM_RATE = 0.05  # Geiping et al. 2020 use 0.1
_ADAM_DROPS = (0.5, 0.8)  # shares of the iterations after which the rate falls to a tenth

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Search:
    """How a reconstruction is searched for, and how long.

    Attributes:
        kind: A key of :data:`SEARCHES`.
        iterations: Of the optimiser, each restart.
        restarts: Searches from other noise; the best match is kept.
        total_variation: Weight of the prior that images are piecewise smooth.
        seconds: After which no further step is begun.
    """

    kind: str
    iterations: int
    restarts: int = 1
    total_variation: float = 0.0
    seconds: float = 30.0


ZHU = Search("l-bfgs", iterations=300, restarts=2)
GEIPING = Search("signed-adam", iterations=1000, total_variation=1e-2)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What a search brought back.

    Attributes:
        image: ``(1, C, *spatial)``.
        distance: One minus the cosine between its gradient and the one that was seen; 0 at best.
    """

    image: Tensor
    distance: float


def infer_label(gradients: Gradients, network: nn.Module) -> int:
    """Return the class of a step of one patient: the last bias whose gradient is negative.

    With cross-entropy that gradient is ``p - y``, negative for the true class only (Zhao et al.
    2020, eq. 4).

    Raises:
        ValueError: The network does not end in a linear layer with a bias.
    """
    layer = _last_linear_layer(network)
    if layer is None:
        msg = "the label cannot be inferred: the network does not end in a linear layer with a bias"
        raise ValueError(msg)
    return int(gradients[f"{layer}.bias"].argmin())


def ends_in_a_linear_layer(network: nn.Module) -> bool:
    """Tell whether :func:`infer_label` can read the network's label."""
    return _last_linear_layer(network) is not None


def match_gradients(
    network: nn.Module,
    gradients: Gradients,
    per_sample: SampleLosses,
    shape: tuple[int, ...],
    search: Search,
    generator: Generator,
) -> Reconstruction:
    """Return the image of one patient whose gradient is nearest to the one that was seen.

    Args:
        network: In evaluation mode; its gradients are left as they are.
        gradients: Of a step of one patient, by parameter name.
        shape: ``(C, *spatial)`` of an image, which the study says.
        generator: Of the images that the searches start from.
    """
    target = torch.tensor([infer_label(gradients, network)])
    trained = [(n, weight) for n, weight in network.named_parameters() if n in gradients]
    weights, wanted = [w for _, w in trained], [gradients[n] for n, _ in trained]

    def gradient_at(image: Tensor) -> list[Tensor]:
        loss = per_sample(network(image), target).mean()
        return list(torch.autograd.grad(loss, weights, create_graph=True))

    measure, descend = SEARCHES[search.kind]
    deadline = time.perf_counter() + search.seconds

    def objective(image: Tensor) -> Tensor:
        prior = search.total_variation * total_variation(image) if search.total_variation else 0.0
        return measure(gradient_at(image), wanted) + prior

    best = Reconstruction(torch.zeros(1, *shape), math.inf)
    for _ in range(search.restarts):
        start = torch.randn((1, *shape), generator=generator)
        image = descend(objective, start, search.iterations, deadline)
        distance = float(cosine_distance(gradient_at(image), wanted).detach())
        best = min(best, Reconstruction(image, distance), key=lambda found: found.distance)
        if time.perf_counter() > deadline:
            break
    return best


def squared_distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return the squared distance in units of what was seen (Zhu et al. 2019, eq. 4).

    Args:
        found: Gradients of the image that is looked for, a tensor a parameter.
        wanted: Those that were seen, of the same shapes.

    Returns:
        A scalar, at least 0.
    """
    scale = sum(float(part.square().sum()) for part in wanted)
    parts = [(one - other).square().sum() for one, other in zip(found, wanted, strict=True)]
    return torch.stack(parts).sum() / max(scale, 1e-30)


def cosine_distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return one minus the cosine of the whole gradients (Geiping et al. 2020, eq. 4).

    Args:
        found: Gradients of the image that is looked for, a tensor a parameter.
        wanted: Those that were seen, of the same shapes.

    Returns:
        A scalar in [0, 2].
    """
    one = torch.cat([part.flatten() for part in found])
    other = torch.cat([part.flatten() for part in wanted])
    return 1 - torch.nn.functional.cosine_similarity(one, other, dim=0, eps=1e-12)


def total_variation(image: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours, the sum over the spatial axes.

    Args:
        image: ``(1, C, *spatial)``.

    Returns:
        A scalar, at least 0.
    """
    axes = range(2, image.ndim)
    return torch.stack([image.diff(dim=axis).abs().mean() for axis in axes]).sum()


def _descend_by_lbfgs(
    objective: Objective, start: Tensor, iterations: int, deadline: float
) -> Tensor:
    image, best, least = start.clone().requires_grad_(), start, math.inf
    optimiser = torch.optim.LBFGS([image], max_iter=_LBFGS_BLOCK, line_search_fn="strong_wolfe")

    def evaluate() -> float:
        optimiser.zero_grad()
        value = objective(image)
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        return float(value.detach())

    for _ in range(max(1, iterations // _LBFGS_BLOCK)):
        optimiser.step(evaluate)  # type: ignore[no-untyped-call] # torch's own
        value = float(objective(image).detach())
        if not value < least:  # stuck, or no longer a number
            break
        best, least = image.detach().clone(), value
        if time.perf_counter() > deadline:
            break
    return best


def _descend_by_signs(
    objective: Objective, start: Tensor, iterations: int, deadline: float
) -> Tensor:
    image = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=_ADAM_RATE)
    drops = [int(share * iterations) for share in _ADAM_DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, gamma=0.1)
    for _ in range(iterations):
        (slope,) = torch.autograd.grad(objective(image), [image])
        image.grad = slope.sign()
        optimiser.step()
        schedule.step()
        if time.perf_counter() > deadline:
            break
    return image.detach()


Measure = Callable[[list[Tensor], list[Tensor]], Tensor]
Descent = Callable[[Objective, Tensor, int, float], Tensor]
SEARCHES: dict[str, tuple[Measure, Descent]] = {
    "l-bfgs": (squared_distance, _descend_by_lbfgs),
    "signed-adam": (cosine_distance, _descend_by_signs),
}


def _last_linear_layer(network: nn.Module) -> str | None:
    """Return the name of the last layer that has numbers, if it is linear with a bias."""
    names = [name for name, layer in network.named_modules() if list(layer.parameters(False))]
    if not names:
        return None
    last = network.get_submodule(names[-1])
    return names[-1] if isinstance(last, nn.Linear) and last.bias is not None else None
