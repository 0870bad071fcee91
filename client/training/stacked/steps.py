"""The local step of several sites at once: one stack of weights, one batched step for all.

The forward pass is ``torch.func.functional_call`` under ``torch.func.vmap``: a convolution of k
sites becomes one grouped convolution, a matrix product a batched one. What a site gets is what it
would get alone, up to rounding: its own batches and learning rates, the mean loss over its own
examples, and as many steps as it has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from wardround.client.data.batch import Batch
from wardround.client.training.local import LARGEST_LOSS, LocalWork
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.corrections import LinearCorrection
from wardround.client.training.stacked.optimisers import STACKED, clip_each
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.learning_rate import learning_rate_at


@dataclass(frozen=True, slots=True, eq=False)
class StackedSite:
    """What one site brings into a stack.

    Attributes:
        batches: ``start.position.steps`` of them, on the network's device; drawn as alone.
        correction: What its objective adds to its gradients; None adds nothing.
    """

    start: LocalStart
    batches: Iterator[Batch]
    correction: LinearCorrection | None = None

    @property
    def steps(self) -> int:
        """How many steps it makes."""
        return self.start.position.steps


@dataclass(frozen=True, slots=True, eq=False)
class StackedWork:
    """What a site's round came to.

    Attributes:
        trained: Its weights by name, rows of the stack.
    """

    work: LocalWork
    trained: Parameters


def are_alike(sites: Sequence[StackedSite]) -> bool:
    """Return whether sites differ in nothing but in what is trained."""
    first = sites[0].start
    trainable = first.layout.trainable
    fixed = [name for name in first.parameters if name not in trainable]
    return all(
        first.parameters[name] is other.parameters[name]
        or torch.equal(first.parameters[name], other.parameters[name])
        for other in (site.start for site in sites[1:])
        for name in fixed
    )


def train_stacked(network: nn.Module, sites: Sequence[StackedSite]) -> list[StackedWork | None]:
    """Train the sites' models as one stack, each from its own start.

    Args:
        network: Of all sites; what is not trained of it must be as the sites have it, and stays.
        sites: Of one study and round. A site that has made its steps stands still.

    Returns:
        One a site, in their order; None where the loss is no number, or no training comes back
        from it: alone, the site says so.
    """
    order = sorted(range(len(sites)), key=lambda place: -sites[place].steps)
    stack = _Stack(network, [sites[place] for place in order])
    network.train()
    for step in range(stack.sites[0].steps):
        stack.step(step)
    done: list[StackedWork | None] = [None] * len(sites)
    for row, place in enumerate(order):
        done[place] = stack.work(row)
    return done


class _Stack:
    """The weights of k sites: those with most steps first, so that who is done is at the end."""

    def __init__(self, network: nn.Module, sites: Sequence[StackedSite]) -> None:
        self.sites = sites
        self._network = network
        weights = {n: w for n, w in network.named_parameters() if w.requires_grad}
        self._names = tuple(weights)
        self._places = _places(network, weights)
        self._whole = [
            torch.stack([site.start.parameters[name] for site in sites]).to(weight)
            for name, weight in weights.items()
        ]
        self._losses = torch.zeros(len(sites), device=self._whole[0].device)
        self._corrections = _Corrections(sites, self._names, self._whole)
        training = sites[0].start.training
        self._clip, self._optimiser = training.gradient_clip, STACKED[training.optimiser](training)
        self._loss = _SiteLosses.of(sites)
        self._leaves: list[Tensor] = []

    def step(self, number: int) -> None:
        """Make the next step of every site that has one."""
        active = [site for site in self.sites if site.steps > number]
        for site in active:
            site.start.limit.check()
        if len(self._leaves) == 0 or len(self._leaves[0]) != len(active):
            self._leaves = [w[: len(active)].detach().requires_grad_() for w in self._whole]
        losses = self._losses_of([next(site.batches) for site in active])
        for leaf in self._leaves:
            leaf.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call] # torch's own
        with torch.no_grad():
            self._descend(active, number)
            self._losses[: len(active)] += losses.detach()

    def work(self, row: int) -> StackedWork | None:
        """Return what a site's round came to."""
        steps = self.sites[row].steps
        mean_loss = float(self._losses[row]) / max(steps, 1)
        if not abs(mean_loss) < LARGEST_LOSS:
            return None
        trained = {n: w[row] for n, w in zip(self._names, self._whole, strict=True)}
        return StackedWork(LocalWork(steps, mean_loss), trained)

    def _losses_of(self, batches: Sequence[Batch]) -> Tensor:
        """Return ``(m,)``: the mean loss of each site's own examples."""
        padded = _Padded.of(batches)

        def forward(weights: Parameters, *inputs: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self._network, weights, inputs, tie_weights=False)
            return outputs

        leaves = dict(zip(self._names, self._leaves, strict=True))
        named = {place: leaves[name] for place, name in self._places.items()}
        outputs = vmap(forward)(named, *padded.inputs)
        return (self._loss.per_sample(outputs, padded.targets) * padded.weights).sum(1)

    def _descend(self, active: Sequence[StackedSite], number: int) -> None:
        pairs = [(leaf, leaf.grad) for leaf in self._leaves]
        used = [place for place, (_, gradient) in enumerate(pairs) if gradient is not None]
        weights = [self._leaves[place] for place in used]
        gradients = [gradient for _, gradient in pairs if gradient is not None]
        self._corrections.add(used, weights, gradients)
        if self._clip is not None:
            clip_each(gradients, self._clip)
        rates = [
            learning_rate_at(site.start.training, site.start.position.at(number)) for site in active
        ]
        self._optimiser.step(weights, gradients, rates)


def _places(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the name of the weight that stands at each place of a network, by the place's name.

    A module that a network holds twice, as DynUNet does, is one place: ``functional_call`` would
    change it twice, and then not find back what had been there.
    """
    names = {id(weight): name for name, weight in weights.items()}
    return {
        place: names[id(weight)]
        for prefix, layer in network.named_modules()
        for place, weight in layer.named_parameters(prefix, recurse=False)
        if id(weight) in names
    }


@dataclass(frozen=True, slots=True)
class _SiteLosses:
    """The losses of k sites, which differ where they weigh or tell apart other classes.

    Attributes:
        common: The loss of all of them; None where they differ.
    """

    each: tuple[MeanLoss, ...]
    common: MeanLoss | None

    @classmethod
    def of(cls, sites: Sequence[StackedSite]) -> "_SiteLosses":
        each = tuple(site.start.loss for site in sites if isinstance(site.start.loss, MeanLoss))
        if len(each) < len(sites):
            msg = "a stack needs losses of single examples"
            raise TypeError(msg)
        alike = all(_weigh_alike(each[0], loss) for loss in each[1:])
        return cls(each, each[0] if alike else None)

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ``(m, B)``: the loss of each example of the first m sites, as its site counts."""
        if self.common is not None:
            losses = self.common.per_sample(outputs.flatten(0, 1), targets.flatten(0, 1))
            return losses.reshape(outputs.shape[:2])
        rows = zip(self.each, outputs, targets, strict=False)  # the others have made their steps
        return torch.stack([loss.per_sample(output, target) for loss, output, target in rows])


def _weigh_alike(one: MeanLoss, other: MeanLoss) -> bool:
    if one.partial != other.partial:
        return False
    if one.class_weights is None or other.class_weights is None:
        return one.class_weights is other.class_weights
    return torch.equal(one.class_weights, other.class_weights)


class _Corrections:
    """What the sites' objectives add to their gradients, stacked."""

    def __init__(
        self, sites: Sequence[StackedSite], names: Sequence[str], whole: Sequence[Tensor]
    ) -> None:
        self._pull = 0.0
        self._anchors: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        given = [site.correction for site in sites if site.correction is not None]
        if len(given) < len(sites):
            return
        self._pull = given[0].pull
        for place, name in enumerate(names):
            if name not in given[0].names:
                continue
            if self._pull:
                self._anchors[place] = whole[place].clone()
            if name in given[0].constants:
                constants = torch.stack([one.constants[name] for one in given])
                self._constants[place] = constants.to(whole[place])

    def add(
        self, places: Sequence[int], weights: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> None:
        """Add ``pull (w - w_received) + constant`` to the gradients of parameters, in place."""
        for place, weight, gradient in zip(places, weights, gradients, strict=True):
            if place in self._anchors:
                apart = weight - self._anchors[place][: len(weight)]
                gradient.add_(apart, alpha=self._pull)
            if place in self._constants:
                gradient.add_(self._constants[place][: len(weight)])


@dataclass(frozen=True, slots=True, eq=False)
class _Padded:
    """Batches of m sites, as long as the longest.

    Attributes:
        inputs: The network's arguments, each ``(m, B, ...)``.
        targets: ``(m, B, ...)``.
        weights: ``(m, B)``: 1 / n of a site's n examples, and 0 of what fills its batch up.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "_Padded":
        longest = max(len(batch) for batch in batches)
        weights = torch.zeros(len(batches), longest)
        for row, batch in enumerate(batches):
            weights[row, : len(batch)] = 1 / len(batch)
        inputs = zip(*(batch.inputs for batch in batches), strict=True)
        return cls(
            tuple(_stacked(parts, longest) for parts in inputs),
            _stacked([batch.targets for batch in batches], longest),
            weights.to(batches[0].targets.device),
        )


def _stacked(parts: Sequence[Tensor], longest: int) -> Tensor:
    """Return ``(m, B, ...)``; a site's first example fills its batch up, and counts for nothing."""
    if all(len(part) == longest for part in parts):
        return torch.stack(list(parts))
    return torch.stack(
        [torch.cat([part, part[:1].expand(longest - len(part), *part.shape[1:])]) for part in parts]
    )
