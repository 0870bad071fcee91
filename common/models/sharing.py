"""Which numbers of a network travel and which stay at the site."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from wardround.common.errors import StudyError
from wardround.common.models.lora import frozen_names
from wardround.common.models.networks.fusion import LateFusion
from wardround.common.parameters.schema import ArraySpec, Parameters, Schema, schema, select
from wardround.common.study.plans.strategy import StrategyPlan

_NORMALISATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
)
_LAYERS = (
    nn.Linear,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# Networks whose head is more than their last layer: MONAI's U-Net brings its features to the number
# of classes with a transposed convolution, and adds what a last convolution makes of that.
_DEEP_HEADS = {"UNet": "model.2"}
_SUPERVISED = "deep_supervision_heads"  # where MONAI keeps the heads of coarser levels
CONTROL = "control/"  # before a parameter's name, in an order's and an update's extras
RECEIVED_LOSS = "received-loss"


def trained_parameters(network: nn.Module) -> Parameters:
    """Return the parameters that a gradient changes, each once, by name."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of a network's numbers, by what becomes of them.

    Attributes:
        trainable: Those that a gradient changes; the others are counters and running means.
        shared: Those that travel, in the network's order.
        personal: Those that stay.
        frozen: Those that never change, beneath adapters: every site makes the same ones from the
            study, so they are not kept, and only travel where a study shares "all".
    """

    trainable: frozenset[str]
    shared: tuple[str, ...]
    personal: tuple[str, ...]
    frozen: tuple[str, ...] = ()

    def shared_part(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """Return what travels of a whole model.

        Args:
            parameters: Named tensors of any shape; those of the whole model.
        """
        return {name: parameters[name] for name in self.shared}

    def personal_part(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """Return what stays of a whole model.

        Args:
            parameters: Named tensors of any shape; those of the whole model.
        """
        return {name: parameters[name] for name in self.personal}

    def frozen_part(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """Return what never changes of a whole model.

        Args:
            parameters: Named tensors of any shape; those of the whole model.
        """
        return {name: parameters[name] for name in self.frozen}

    def mutable_part(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """Return all but what never changes of a whole model.

        Args:
            parameters: Named tensors of any shape; those of the whole model.
        """
        frozen = frozenset(self.frozen)
        return {name: tensor for name, tensor in parameters.items() if name not in frozen}


def layout_of(network: nn.Module, plan: StrategyPlan) -> Layout:
    """Return what a plan shares of a network.

    Raises:
        StudyError: Nothing would be shared, or nothing would stay though the plan says so.
        ModelError: A pattern of ``federation.personal`` matches no name.
    """
    whole, frozen = tuple(network.state_dict()), frozen_names(network)
    names = tuple(name for name in whole if name not in set(frozen))
    personal = set(select(names, plan.personal)) if plan.personal else set()
    if plan.share == "all-but-normalisation":
        found = set(normalisation_names(network)).intersection(names)
        personal.update(_required(found, "normalisation with numbers"))
    elif plan.share == "all-but-head":
        personal.update(_required(head_names(network), "last layer"))
    shareable = whole if plan.share == "all" else names
    shared = tuple(name for name in shareable if name not in personal)
    if not shared:
        msg = "nothing of this network is shared: choose another federation.share or personal."
        raise StudyError(msg)
    weights = network.named_parameters(remove_duplicate=False)
    trainable = frozenset(name for name, weight in weights if weight.requires_grad)
    return Layout(trainable, shared, tuple(name for name in names if name in personal), frozen)


def normalisation_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of all scales, shifts, running means and counters of normalisations."""
    return tuple(
        name
        for prefix, layer in network.named_modules(remove_duplicate=False)
        if isinstance(layer, _NORMALISATIONS)
        for name in layer.state_dict(prefix=f"{prefix}.")
    )


def head_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the numbers of the head, in a late fusion of both its heads."""
    heads = {id(layer) for layer in _heads(network)}
    return tuple(
        name
        for prefix, layer in network.named_modules(remove_duplicate=False)
        if id(layer) in heads
        for name in layer.state_dict(prefix=f"{prefix}.")
    )


def _heads(network: nn.Module) -> list[nn.Module]:
    """Return what makes logits: of a late fusion one layer a channel, with tokens and values."""
    if isinstance(network, LateFusion):
        beside = network.covariate_network
        values = [] if beside is None else [head_layer(beside)]
        return [*map(_head, network.encoders), *network.tokens, *values]
    beside = getattr(network, "covariate_layer", None)
    coarser = getattr(getattr(network, "image_network", network), _SUPERVISED, ())
    return [_head(network), *map(head_layer, coarser), *([] if beside is None else [beside])]


def _head(network: nn.Module) -> nn.Module:
    """Return what has one output a class: more than one layer in some networks."""
    inner: nn.Module = getattr(network, "image_network", network)
    part = _DEEP_HEADS.get(type(inner).__name__)
    return head_layer(network) if part is None else inner.get_submodule(part)


def head_layer(network: nn.Module) -> nn.Module:
    """Return the layer that makes the logits: the last linear or convolutional one.

    Holds for every network of the catalogue (each is tested). Its input is what a method on
    features calls the representation.

    Raises:
        StudyError: There is no such layer.
    """
    inner = getattr(network, "image_network", network)
    coarser = getattr(inner, _SUPERVISED, None)
    beside = () if coarser is None else tuple(coarser.modules())
    layers = [
        layer
        for layer in inner.modules()
        if isinstance(layer, _LAYERS) and all(layer is not other for other in beside)
    ]
    if not layers:
        msg = "this network has no linear or convolutional layer: choose another network."
        raise StudyError(msg)
    return layers[-1]


def auxiliary_schema(plan: StrategyPlan, layout: Layout, model: Mapping[str, Tensor]) -> Schema:
    """Return what an update carries beside the model: all that a plan lets leave a site.

    Args:
        plan: The strategy's four choices.
        layout: What is shared of the network.
        model: The whole model; only names, shapes and dtypes count.
    """
    return tuple(_auxiliary(plan, layout, schema(model)))


def _auxiliary(plan: StrategyPlan, layout: Layout, specs: Schema) -> Iterator[ArraySpec]:
    if plan.objective == "control-variates":
        for spec in specs:
            if spec.name in layout.trainable:
                yield ArraySpec(CONTROL + spec.name, spec.shape, spec.dtype)
    if plan.aggregation == "fair-mean":
        yield ArraySpec(RECEIVED_LOSS, (), "float64")


def _required(names: Collection[str], what: str) -> Collection[str]:
    if not names:
        msg = f"this network has no {what} that could stay at a site: set federation.share = 'all'."
        raise StudyError(msg)
    return names
