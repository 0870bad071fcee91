"""Which studies can be trained as a stack, and why the others cannot.

A stack gives each site what it would get in its turn. So whatever couples the examples of a batch,
draws random numbers within the network, or needs a step of its own is refused, and so is whatever
this file does not know.
"""

from torch import nn

from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.sections.model import ModelSection
from wardround.common.study.sections.training import TrainingSection
from wardround.common.study.study import Study

STACKED_NETWORKS = (
    "small-cnn",
    "mlp",
    "unet",
    "basic-unet",
    "attention-unet",
    "segresnet",
    "dynunet",
)
STACKED_LOSSES = (
    "cross-entropy",
    "focal",
    "bce",
    "dice",
    "dice-ce",
    "generalised-dice",
    "mse",
    "l1",
    "huber",
    "piecewise-hazard",
    "masked-l1",
)
STACKED_OPTIMISERS = ("sgd", "adam", "adamw")
STACKED_OBJECTIVES = ("plain", "fine-tune", "proximal", "control-variates", "dynamic")
# Keys that change nothing that a stack does otherwise; another one may.
_TRAINING_KEYS = frozenset(
    {
        "loss",
        "class_weights",
        "optimiser",
        "learning_rate",
        "momentum",
        "weight_decay",
        "schedule",
        "warmup",
        "batch_size",
        "local_epochs",
        "local_steps",
        "sampling",
        "modality_dropout",
        "gradient_clip",
        "precision",
        "patch_size",
        "patches_per_image",
        "foreground_fraction",
        "adversarial",
        "masking",
    }
)
_MODEL_KEYS = frozenset(
    {
        "network",
        "features",
        "normalisation",
        "activation",
        "dropout",
        "fusion",
        "adapter_rank",
        "adapter_scale",
        "weights_sha256",
        "frozen",
    }
)
_COUPLING = (nn.modules.batchnorm._BatchNorm,)
_TRACKING = (nn.modules.instancenorm._InstanceNorm,)
_DROPPING = (nn.modules.dropout._DropoutNd,)


def why_not_stacked(study: Study) -> str:
    """Return why a study cannot be trained as a stack; "" where it can, as far as it says."""
    return next((reason for reason in _reasons(study) if reason), "")


def why_not_network(network: nn.Module) -> str:
    """Return why a network cannot be one of a stack; "" where it can."""
    for layer in network.modules():
        coupled = isinstance(layer, _COUPLING)
        if coupled or (isinstance(layer, _TRACKING) and layer.track_running_stats):
            return "its normalisation couples the examples of a batch"
        if isinstance(layer, _DROPPING) and layer.p > 0:
            return "dropout draws from one stream for the whole network"
    return ""


def _reasons(study: Study) -> tuple[str, ...]:
    training, model, plan = study.training, study.model, plan_of(study)
    sized = study.data.kind == "table" or study.input_size is not None
    other = (*_others(training, _TRAINING_KEYS), *_others(model, _MODEL_KEYS))
    return (
        _unless(what_leaves(study).noise_added_by != "site", "it clips each patient's gradient"),
        _unless(training.adversarial is None, "it changes images against the network"),
        _unless(study.loss in STACKED_LOSSES, f"its loss {study.loss!r} is none of one example"),
        _unless(
            model.network in STACKED_NETWORKS,
            f"its network {model.network!r} is none of {', '.join(STACKED_NETWORKS)}",
        ),
        _unless(
            training.optimiser in STACKED_OPTIMISERS,
            f"its optimiser {training.optimiser!r} is not written for a stack",
        ),
        _unless(
            plan.objective in STACKED_OBJECTIVES,
            f"its local objective {plan.objective!r} needs a network of its own",
        ),
        _unless(training.precision == "float32", f"it computes in {training.precision}"),
        _unless(model.dropout == 0, "dropout draws from one stream for the whole network"),
        _unless(sized, "its images may differ in size (data.size and training.patch_size unset)"),
        _unless(study.federation.buffer_size is None, "its sites are asked one by one"),
        _unless(not other, f"nobody has looked whether {', '.join(other)} can be stacked"),
    )


def _unless(fits: bool, reason: str) -> str:
    return "" if fits else reason


def _others(section: TrainingSection | ModelSection, known: frozenset[str]) -> list[str]:
    """Return the keys of a section that say something and are not known here."""
    name = type(section).__name__.removesuffix("Section").lower()
    return [
        f"{name}.{key}"
        for key, field in type(section).model_fields.items()
        if key not in known
        and getattr(section, key) != field.get_default(call_default_factory=True)
    ]
