"""The sections of a random study, each drawn so that most of what comes out fits together."""

from collections.abc import Sequence
from typing import Any

from tests.studies.draft import AUGMENTATIONS, OF_MONAI, Content, Draft
from tests.studies.patients import CLASSES

from wardround.common.study.plans.flower_strategies import stock_names
from wardround.common.study.plans.strategy import (
    AGGREGATION_RULES,
    CONTINUAL_OBJECTIVES,
    OBJECTIVES,
    PRESETS,
    ROBUST,
    SERVER_OPTIMISERS,
    SHARING,
)
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.registry import LOSSES, METRICS, NETWORKS, TASKS


def data_section(draft: Draft) -> Content:
    chance, table = draft.chance, not draft.dimensions
    covariates: Sequence[Content] = (
        {"name": "age", "mean": 60.0, "scale": 10.0},
        {"name": "weight"},
        {"name": "sex", "values": ["f", "m"]},
    )
    count = chance.randint(1, 3) if table else chance.mostly(0, 1, 3)
    data: Content = {
        **_answer(draft),
        "multi_label": draft.several,
        "covariates": list(covariates[:count]),
        "covariate_scaling": chance.mostly("study", "site") if count else "study",
        "optional": [one["name"] for one in covariates[:count] if chance.seldom()],
    }
    if table:
        return {**data, "kind": "table"}
    channels = chance.mostly(["image"], ["image", "second"])
    intensity = chance.choice([name for name in AUGMENTATIONS if name not in ("light", "nnunet")])
    if draft.restores:
        data = {}
    elif TASKS[draft.task].boxes:
        data["optional"] = []
    elif len(channels) > 1:
        data["optional"] += [name for name in channels if chance.seldom()]
    return {
        **data,
        "dimensions": draft.kind.dimensions,
        "colour": draft.kind.colour,
        "channels": channels,
        "intensity": intensity,
        "augmentation": chance.choice(AUGMENTATIONS),
        "denoise": chance.seldom(),
        **_harmonisation(draft, intensity, channels),
    }


def _answer(draft: Draft) -> Content:
    """Draw the classes, or what is predicted where there are none."""
    chance, kind = draft.chance, TASKS[draft.task].outcome
    if not kind:
        return {"classes": list(CLASSES[: chance.randint(2, 3)])}
    if kind == "time":
        times = chance.choice([[365.0], [100.0, 300.0, 1000.0], [50.0, 5000.0]])
        return {"outcome": {"name": "death", "unit": "days", "times": times}}
    scale = chance.some({"mean": [50.0], "scale": [10.0, 25.0]})
    return {"outcome": {"name": "size", "unit": "ml", "range": [0.0, 100.0], **scale}}


def _harmonisation(draft: Draft, intensity: str, channels: Sequence[str]) -> Content:
    chance = draft.chance
    if intensity == "ct" or not chance.seldom():
        return {}
    asked: Content = {"bias_correction": chance.mostly(True, False)}
    if chance.mostly(True, False):
        planes = len(channels) * (3 if draft.kind.colour else 1)
        asked["landmarks"] = [[20.0 * step + 5 for step in range(11)]] * planes
        asked["foreground"] = chance.choice(["nonzero", "above-mean", "all"])
    return {"harmonisation": asked}


def model_section(draft: Draft) -> Content:
    chance, entry = draft.chance, NETWORKS[draft.network]
    model: Content = {"network": draft.network}
    if draft.privacy == "patient":
        model |= _private_normalisation(draft)
    elif entry.normalisations and chance.random() < 1 / 2:
        model["normalisation"] = chance.choice(entry.normalisations)
    if model.get("normalisation") == "batch" and draft.dimensions and draft.network != "mlp":
        model.update(chance.some({"test_time_statistics": [0.1, 1.0]}))
    if entry.activations and chance.seldom():
        model["activation"] = chance.choice(["relu", "prelu", "gelu", "elu", "swish"])
    if entry.dropout and chance.seldom():
        model["dropout"] = 0.3
    model.update(_widths(draft))
    model.update(_arguments(draft))
    whole = draft.restores or TASKS[draft.task].boxes  # they have no tokens
    if draft.dimensions and not whole and chance.seldom():
        model["fusion"] = chance.choice(["intermediate", "late"])
    if entry.adapters and chance.seldom() and "test_time_statistics" not in model:
        model["adapter_rank"] = chance.randint(1, 4)
    return model


def _arguments(draft: Draft) -> Content:
    if draft.network != OF_MONAI:
        return {}
    chosen = {"num_res_units": [1, 2], "dropout": [0.3], "act": ["RELU", "ELU"]}
    more = draft.chance.some(chosen)
    return {"arguments": {"channels": [2, 4], "strides": [2], **more}}


def _private_normalisation(draft: Draft) -> Content:
    chance, entry = draft.chance, NETWORKS[draft.network]
    if not entry.flat and "batch" in entry.normalisations and chance.seldom():
        return {"normalisation": "batch", "fixer": "opacus"}
    return {"normalisation": chance.choice(PRIVATE_NETWORKS[draft.network].normalisations)}


def _widths(draft: Draft) -> Content:
    chance, entry = draft.chance, NETWORKS[draft.network]
    if not entry.features:
        return {}
    fewest, most = entry.widths
    count = chance.randint(fewest, min(most, max(fewest, 3)))
    return {"features": [chance.choice([1, 2, 3, 4, 8]) for _ in range(count)]}


def training_section(draft: Draft) -> Content:
    chance = draft.chance
    losses = [name for name, tasks in LOSSES.items() if draft.task in tasks]
    training = {
        "optimiser": chance.choice(["sgd", "sgd", "adam", "adamw"]),
        "learning_rate": chance.choice([1e-3, 1e-2]),
        "batch_size": 4 if draft.heavy else chance.randint(1, 9),
        **chance.some(
            {
                "loss": losses,
                "weight_decay": [0.01],
                "schedule": ["cosine", "polynomial", "step"],
                "warmup": [0.1, 0.5, 1.0],
            }
        ),
    }
    key = "local_steps" if draft.heavy else chance.choice(["local_steps", "local_epochs"])
    training[key] = 1 if draft.heavy else chance.mostly(1, 2)
    if training["optimiser"] == "sgd" and chance.seldom():
        training["momentum"] = 0.9
    if draft.privacy == "patient":
        return training
    training.update(chance.some({"gradient_clip": [1.0]}))
    if draft.restores:
        training.update(chance.some({"masking": [{}, {"fraction": 0.3, "patch": 2}]}))
    else:
        training.update(chance.some({"class_weights": ["balanced"]}))
    if chance.seldom() and TASKS[draft.task].classifies and not draft.several:
        training["sampling"] = "balanced"
    if not draft.heavy:  # a step of resnet50 at float16 takes a minute on a core
        training["precision"] = chance.mostly("float32", "bfloat16", "float16")
    return training


def federation_section(draft: Draft) -> Content:
    chance = draft.chance
    names = [*PRESETS, *PRESETS, *(f"flower:{name}" for name in stock_names())]
    choices: dict[str, Sequence[Any]] = {
        "share": sorted(SHARING),
        "objective": sorted(OBJECTIVES.keys() - {*CONTINUAL_OBJECTIVES.values()}),
        "aggregation": sorted(AGGREGATION_RULES),
        "server_optimiser": sorted(SERVER_OPTIMISERS),
        "personal": [["*bias"]],
        "fraction": [0.5],
        "norm_limit": [10.0],
        "patience_rounds": [1],
        "buffer_size": [1, 2],
    }
    keys = chance.sample(sorted(choices), chance.mostly(0, 1, 2))
    strategy = chance.choice(names)
    hostile = strategy in ROBUST and not chance.seldom()
    return {
        "strategy": strategy,
        "rounds": 1 if draft.heavy else chance.mostly(1, 2),
        "seed": chance.randint(0, 3),
        "compression": chance.mostly("none", "float16", "bfloat16", "int8", "int4", "top-k"),
        "options": {"assumed_hostile": 0} if hostile else {},
        **{key: chance.choice(choices[key]) for key in keys},
    }


def evaluation_section(draft: Draft) -> Content:
    metrics = [
        name for name, entry in METRICS.items() if draft.task in entry.tasks and not entry.surface
    ]
    fractions = draft.chance.mostly((0.2, 0.2), (0.0, 0.2), (0.2, 0.0), (0.0, 0.0))
    return {
        "validation_fraction": fractions[0],
        "test_fraction": fractions[1],
        **draft.chance.some(
            {
                "metric": metrics,
                "keep": ["best", "last"],
                "score_bins": [10],
                "overlap": [0.0],
            }
        ),
    }


def simulation_section(draft: Draft) -> Content:
    chance = draft.chance
    shifts = ("contrast", "bias-field", "noise", "blur", "scaling")
    return {
        "data": "folder",
        "split": chance.choice(["iid", "natural", "dirichlet", "quantity", "classes"]),
        "sites": chance.randint(2, 3) if draft.heavy else chance.randint(1, 4),
        "compare": chance.random() < 1 / 8 and not draft.heavy,
        "shift": [{"kind": chance.choice(shifts)}] if chance.seldom() else [],
    }


def privacy_section(draft: Draft) -> Content:
    chance = draft.chance
    privacy: Content = {"mode": draft.privacy, "noise_multiplier": chance.choice([1.0, 2.0])}
    if draft.privacy == "site":
        return {**privacy, "adaptive_clipping": chance.seldom()}
    return {
        **privacy,
        "sampling_rate": 0.1 if draft.heavy else chance.choice([0.1, 0.5, 1.0]),
        **chance.some(
            {
                "examples_per_patient": [1, 2],
                "augmentation_copies": [1, 2],
                "microbatch": [1, 3],
                "gradients": ["loop", "opacus"],
            }
        ),
    }
