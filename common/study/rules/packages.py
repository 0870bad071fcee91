"""What a study may ask of installed packages; what is asked for is not looked up here.

A third-party loss or network takes part in a private study: each patient takes a pass of its own,
whose gradient our engine clips whatever made it. A third-party metric does not: what a private
study measures leaves as one vector of bounded sums with noise, and no bound of it was proved.
"""

from collections.abc import Callable, Iterator

from wardround.common.files.packages.references import MONAI, RESERVED, reference_of
from wardround.common.study.study import Study

_LOCK = "run 'wardround study lock' with the study file, where the package is installed"


def package_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule about packages that is broken."""
    for rule in _RULES:
        yield from rule(study)


def _hashes_are_there(study: Study) -> Iterator[str]:
    asked: dict[str, list[str]] = {}
    for text in study.registered.values():
        named = reference_of(text)
        if named is not None:
            asked.setdefault(named.package, []).append(text)
    for package, names in asked.items():
        if package not in study.packages:
            yield (
                f"the study names {', '.join(dict.fromkeys(names))}, and [packages] has no hash of "
                f"{package}, so that no hospital could say which code it allows: {_LOCK}."
            )
    for package in study.packages:
        if package in RESERVED:
            yield f"packages.{package} is no package that a study may name: remove it."


def _kinds_fit(study: Study) -> Iterator[str]:
    if reference_of(study.federation.objective or "") is not None:
        yield (
            f"federation.objective = {study.federation.objective!r}: a package registers how the "
            "server combines updates, never what a site does beside the loss: name it as "
            "federation.strategy."
        )
    if study.task.boxes and reference_of(study.data.augmentation) is not None:
        yield (
            f"data.augmentation = {study.data.augmentation!r} would change images and not the "
            "boxes on them: choose one of Wardround's own."
        )
    if study.data.kind == "table" and reference_of(study.data.augmentation) is not None:
        yield "data.augmentation is for images: remove it."


def _network_fits(study: Study) -> Iterator[str]:
    model, name = study.model, study.model.network
    is_other = reference_of(name) is not None or name.startswith(MONAI)
    if model.arguments and not is_other:
        yield (
            f"model.arguments is for a network of a package or of MONAI, and {name} has keys of "
            "its own (model.features, model.dropout and others): remove it."
        )
    if is_other and study.data.kind == "image" and study.input_size is None:
        yield (
            f"model.network = {name!r} is not known to take images of any size: set data.size or "
            "training.patch_size."
        )
    if is_other and model.fusion == "intermediate":
        yield (
            f"model.fusion = 'intermediate' needs to know the layers of {name}: choose 'early' or "
            "'late'."
        )


def _loss_fits(study: Study) -> Iterator[str]:
    loss, data = study.training.loss, study.data
    if loss is None or reference_of(loss) is None:
        return
    if data.ignore_label is not None:
        yield (
            f"data.ignore_label needs a loss that is known pixel by pixel, and {loss} is not: "
            "choose one of Wardround's own."
        )
    if data.labels.partial:
        yield (
            f"data.labels.partial merges classes inside the loss, which {loss} does not know of: "
            "choose one of Wardround's own."
        )


def _metrics_fit(study: Study) -> Iterator[str]:
    if not study.package_metrics:
        return
    task, first = study.study.task, study.package_metrics[0]
    if task not in ("classification", "segmentation", "regression"):
        yield f"evaluation.metrics names {first}, and no package measures {task}: remove it."
    if study.privacy.mode == "patient":
        yield (
            f"evaluation.metrics names {first}, and a study that protects its patients measures "
            "one vector of sums whose bounds are proved, with noise on it: remove it, and measure "
            "it on data of your own ('wardround evaluate')."
        )
    if study.data.labels.partial:
        yield f"evaluation.metrics names {first}, which knows no data.labels.partial: remove it."


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _hashes_are_there,
    _kinds_fit,
    _network_fits,
    _loss_fits,
    _metrics_fit,
)
