"""What the recipes of the built-in studies change: keys of a study, and nothing else.

``default`` is the study as its file says. ``fast`` is for a first look; ``best`` takes the time
that a good model takes. What a run records is the study that came of it, whose digest says all.
"""

from collections.abc import Mapping
from types import MappingProxyType

from wardround.common.errors import InputError, known_names
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study

DEFAULT = "default"
Changes = Mapping[str, object]

# nnU-Net's recipe (Isensee et al. 2021) as far as a CPU goes. No voxel of the foreground of any
# of the 260 cases lies outside of 40 x 56 x 40 voxels around the centre: more is padding.
_NNUNET: Changes = {
    "data.augmentation": "nnunet",
    "evaluation.tta": "mirror",
    "federation.ema": 0.9,
    "model.deep_supervision": 2,
    "model.features": [16, 32, 64, 128],
    "model.network": "dynunet",
    "training.optimiser": "adamw",
    "training.weight_decay": 3e-5,
}

RECIPES: Mapping[str, Mapping[str, Changes]] = {
    "bccd": {"fast": {"federation.rounds": 5}, "best": {"evaluation.tta": "mirror"}},
    "brain-tissue-scanners": {},
    "brain-tissue": {"fast": {"federation.rounds": 4}},
    "heart-disease": {"fast": {"federation.rounds": 5}},
    "heart-disease-private": {},
    "pneumonia-xray-sum": {},
    "hippocampus": {
        "fast": {"data.size": [40, 56, 40], "federation.rounds": 20},
        "best": {
            **_NNUNET,
            "data.size": [40, 56, 40],
            "federation.rounds": 80,
            "training.learning_rate": 2e-3,
            "training.precision": "bfloat16",
        },
    },
    "hippocampus-private": {},
    "pneumonia-xray": {
        "fast": {"federation.rounds": 5},
        "best": {
            "federation.ema": 0.8,
            "federation.rounds": 30,
            "model.features": [32, 64, 128],
            "training.label_smoothing": 0.1,
            "training.optimiser": "adamw",
            "training.schedule": "cosine",
            "training.warmup": 0.05,
            "training.weight_decay": 0.05,
        },
    },
    "skin-lesions": {
        "fast": {"federation.rounds": 8},
        "best": {
            "evaluation.tta": "mirror",
            "federation.ema": 0.8,
            "federation.rounds": 60,
            "model.features": [16, 32, 64, 128],
            "training.learning_rate": 2e-3,
            "training.local_epochs": 2,
            "training.mixup": 0.2,
            "training.schedule": "cosine",
            "training.warmup": 0.05,
        },
    },
}

# CPU minutes of the federation alone, on one core of an AMD EPYC with torch 2.13.0+cpu; what a
# recipe of a study is not listed with was not measured.
CPU_MINUTES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "bccd": {"default": 3, "best": 3},
        "hippocampus": {"best": 49},
        "pneumonia-xray": {"default": 0.4, "best": 2},
        "skin-lesions": {"default": 1, "best": 6},
    }
)


def recipes_of(name: str) -> tuple[str, ...]:
    """Return the recipes of a built-in study, by name; of another study there is the one."""
    return tuple(sorted({DEFAULT, *RECIPES.get(name, {})}))


def with_recipe(study: Study, name: str, recipe: str) -> Study:
    """Return a study with a recipe's keys changed, checked again.

    Args:
        study: As it was read.
        name: What somebody typed for it: recipes are of built-in studies.
        recipe: "fast", "default" or "best".

    Raises:
        InputError: The study has no such recipe.
    """
    if recipe == DEFAULT:
        return study
    if name not in RECIPES:
        msg = (
            f"{name} is no built-in study, and only these have recipes: write the keys into the "
            f"file, or give one of {', '.join(sorted(RECIPES))}."
        )
        raise InputError(msg)
    if recipe not in RECIPES[name]:
        raise InputError(known_names(f"recipe of {name}", recipe, recipes_of(name)))
    return with_changes(study, RECIPES[name][recipe], f"{name} with --recipe {recipe}")


def cost_words(name: str, recipe: str) -> str:
    """Return what a recipe costs beside the others of its study; empty where none was measured."""
    measured = CPU_MINUTES.get(name, {})
    if recipe not in measured:
        return ""
    others = ", ".join(
        f"{other} {minutes:g}" for other, minutes in measured.items() if other != recipe
    )
    beside = f" ({others})" if others else ""
    return (
        f"{name} with --recipe {recipe} took {measured[recipe]:g} CPU minutes of training{beside}, "
        "measured on one core of an AMD EPYC; the comparison models take as much again, each."
    )
