"""Rules of the network: what it takes, how wide it is, what of it is trained."""

from collections.abc import Callable, Iterator

from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study

# Networks whose own normalisation has the statistics of batches.
_BATCH_BY_DEFAULT = ("attention-unet", "densenet121", "efficientnet-b0", "resnet18", "resnet50")


def _network_fits(study: Study) -> Iterator[str]:
    entry = NETWORKS.get(study.model.network)
    if entry is None:
        return
    dimensions = 0 if study.data.kind == "table" else study.data.dimensions
    if dimensions not in entry.dimensions:
        what = "a table" if dimensions == 0 else f"{dimensions}D images"
        yield f"model.network = {study.model.network!r} does not take {what}: choose another."
    chosen = study.model.normalisation
    if chosen != "default" and chosen not in entry.normalisations:
        options = ", ".join(("default", *entry.normalisations))
        yield (
            f"model.normalisation = {chosen!r} is not available for {study.model.network}: "
            f"choose one of {options}."
        )
    fixed = {
        "activation": study.model.activation != "default" and not entry.activations,
        "dropout": study.model.dropout > 0 and not entry.dropout,
        "features": study.model.features is not None and not entry.features,
    }
    for key, is_set in fixed.items():
        if is_set:
            yield f"model.{key} cannot be chosen for {study.model.network}: remove it."


def _widths_fit(study: Study) -> Iterator[str]:
    entry, features = NETWORKS.get(study.model.network), study.model.features
    if entry is None or features is None or not entry.features:
        return
    fewest, most = entry.widths
    if not fewest <= len(features) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        yield (f"model.features lists {len(features)} widths: {study.model.network} takes {count}.")
    if any(width < entry.narrowest for width in features):
        yield (
            f"model.features = {list(features)} is too narrow for {study.model.network}: "
            f"each width must be at least {entry.narrowest}."
        )


def _adapters_fit(study: Study) -> Iterator[str]:
    model, entry = study.model, NETWORKS.get(study.model.network)
    if model.adapter_rank is None:
        if model.adapter_scale != 1:
            yield "model.adapter_scale has no effect without model.adapter_rank: set both."
        return
    if model.frozen:
        yield "model.frozen and model.adapter_rank both freeze the network: set one of them."
    if entry is not None and not entry.adapters:
        fitting = ", ".join(name for name, entry in NETWORKS.items() if entry.adapters)
        yield (
            f"model.adapter_rank = {model.adapter_rank} is for transformers ({fitting}), not for "
            f"{model.network}: remove it."
        )
    if model.normalisation == "batch":
        yield (
            "model.normalisation = 'batch' does not fit model.adapter_rank, whose frozen network "
            "must not gather running means: use 'instance' or 'group'."
        )


def _test_time_fits(study: Study) -> Iterator[str]:
    model = study.model
    if model.test_time_statistics is None:
        return
    chosen = model.normalisation
    batch = chosen == "batch" or (chosen == "default" and model.network in _BATCH_BY_DEFAULT)
    if not batch or study.data.kind == "table" or model.network == "mlp":
        kind = "its own kind" if chosen == "default" else f"normalisation {chosen!r}"
        yield (
            f"model.test_time_statistics does nothing for {model.network} with {kind}: instance, "
            "group and layer normalisation look at the image alone already. Remove it, or set "
            "model.normalisation = 'batch' for images."
        )
    if model.adapted:
        yield (
            "model.test_time_statistics does not fit a network that is partly frozen: remove one "
            "of the two."
        )


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _network_fits,
    _widths_fit,
    _adapters_fit,
    _test_time_fits,
)


def network_rules(study: Study) -> Iterator[str]:
    """Yield a sentence for each rule of the network that a study breaks."""
    for rule in _RULES:
        yield from rule(study)
