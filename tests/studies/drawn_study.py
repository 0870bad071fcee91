"""Random studies: every task, network, loss, strategy, sampling, precision and privacy mode.

Each section is drawn so that most of what comes out fits together. What does not is refused by the
study's own rules, and another one is drawn.
"""

from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

from safetensors.torch import save
from tests.studies.patients import CLASSES, SITES, Kind

from wardround.common.errors import ModelError, StudyError
from wardround.common.models.networks.registry import build_network, require_network
from wardround.common.models.pretrained import load_pretrained, store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.parameters.arithmetic import digest
from wardround.common.study.loading import parse_study, require_simulation, with_changes
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
from wardround.common.study.study import Study

Content = dict[str, Any]
_Item = TypeVar("_Item")

# These are drawn less often, and make one step.
_HEAVY = ("resnet18", "resnet50", "densenet121", "efficientnet-b0", "swin-unetr")
_HEAVY_TOO = ("segresnet", "vit")
_OF_MONAI = "monai:UNet"
# A round of these takes half a minute on a core where a volume is the least they take.
_TOO_SLOW = {(name, 3) for name in _HEAVY}
_PRESETS = (
    "none",
    "light",
    "xray",
    "ct",
    "mr",
    "dermoscopy",
    "ultrasound",
    "histology",
    "nnunet",
)
_MIRRORING = ("dermoscopy", "histology", "nnunet")


def draw_study(seed: int, manifest: str) -> tuple[Study, Kind]:
    """Return the study of a seed, with the kind of its images; ``study check`` lets it pass."""
    chance = _Chance(seed)
    while True:
        content, kind = _Draft(chance).content()
        content["simulation"]["options"] = {"manifest": manifest}
        try:
            study = parse_study(content)
            require_simulation(study)
            require_network(study)
            masked = _masked(started(study, chance), Random(seed))
            return _continued(masked, Random(seed + 1)), kind
        except (StudyError, ModelError):
            continue


def _sites_of(content: Content) -> list[str]:
    simulation = content["simulation"]
    if simulation["split"] == "natural":
        return list(SITES)
    return [f"hospital-{number + 1}" for number in range(simulation["sites"])]


def started(study: Study, chance: "_Chance") -> Study:
    """Return a study that starts from weights, which are made here, or with a part frozen.

    The weights go where ``wardround model pretrain`` puts them. Some lack a layer, and some were
    made for another task.

    Raises:
        StudyError, ModelError: ``wardround study check`` says that it does not fit.
    """
    if not chance.seldom():
        return study
    model: Content = {}
    plain = with_changes(study, {"model.adapter_rank": None}) if study.model.adapter_rank else study
    state = dict(build_network(plain, seed=7).state_dict())
    layers = [name.rpartition(".")[0] for name in state]
    if chance.mostly(True, False):
        lost = chance.choice(layers) if chance.seldom() else None
        tensors = {
            name: tensor.detach().clone().contiguous()
            for name, tensor in state.items()
            if lost is None or name.rpartition(".")[0] != lost
        }
        task = chance.mostly(study.study.task, "pretraining")
        content = save(tensors, WeightsOrigin("made", "", "drawn", task, "none").as_metadata())
        model["model.weights_sha256"] = sha256(content).hexdigest()
        store_weights(model["model.weights_sha256"], content)
    if study.model.adapter_rank is None and chance.mostly(True, False):
        # A whole layer, or half of one; "*.bias" halves them all.
        ending = chance.mostly("*", ".weight", ".bias")
        model["model.frozen"] = [f"{chance.mostly(chance.choice(layers), '*')}{ending}"]
    changed = with_changes(study, model) if model else study
    require_network(changed)
    load_pretrained(build_network(changed, study.federation.seed), changed)
    return changed


def _masked(study: Study, chance: Random) -> Study:
    """Return one study in six with masked updates, where it can have them.

    The draw is one of its own: what else is drawn of a seed does not change.
    """
    if chance.random() > 1 / 6:
        return study
    changes: dict[str, object] = {
        "federation.secure_aggregation": True,
        "federation.compression": "none",
        "evaluation.keep": "last",
        "evaluation.pack": (),
        "simulation.sites": chance.randint(3, 4),
        "federation.masks.clip_norm": chance.choice((None, 1.0)),
        "federation.masks.word_bits": 32 if study.federation.aggregation == "mean" else 64,
    }
    if study.federation.aggregation in ROBUST:
        changes |= {
            "federation.masks.groups": 3,
            "federation.minimum_sites": 9,
            "federation.options.assumed_hostile": 0,
            "simulation.sites": 9,
        }
    try:
        masked = with_changes(study, changes)
        require_simulation(masked)
    except StudyError:
        return study
    return masked


def _continued(study: Study, chance: Random) -> Study:
    """Return one study in six that comes in waves, mostly as one that goes on from another.

    The draw is one of its own, as that of masks is.
    """
    if chance.random() > 1 / 6:
        return study
    wave, method = chance.choice([1, 2]), chance.choice(["none", "replay", "ewc", "lwf"])
    held: dict[str, object] = {"continual.wave": wave, "continual.method": method}
    if method == "replay" and chance.random() < 1 / 2:
        held["continual.replay"] = chance.choice([0.1, 0.9])
    try:
        if method in ("ewc", "lwf") or chance.random() < 1 / 2:
            network = build_network(study, seed=7)
            weights = {n: t.detach().clone().contiguous() for n, t in network.state_dict().items()}
            origin = WeightsOrigin("made", "", "drawn", study.study.task, "none", study.digest)
            content = save(weights, origin.as_metadata())
            held["model.weights_sha256"] = sha256(content).hexdigest()
            store_weights(str(held["model.weights_sha256"]), content)
            held["continual.parent"], held["continual.model"] = study.digest, digest(weights)
        continued = with_changes(study, held)
        require_simulation(continued)
        load_pretrained(build_network(continued, study.federation.seed), continued)
    except (StudyError, ModelError):
        return study
    return continued


class _Chance(Random):
    """The draws of one study."""

    def mostly(self, usual: _Item, *others: _Item) -> _Item:
        """Return the usual in two of three draws."""
        return usual if self.random() < 2 / 3 else self.choice(others)

    def seldom(self) -> bool:
        """Return whether one draw in four says so."""
        return self.random() < 1 / 4

    def some(self, keys: dict[str, Sequence[Any]]) -> Content:
        """Return a third of the keys, each with one of its values."""
        return {k: self.choice(v) for k, v in keys.items() if self.random() < 1 / 3}


class _Draft:
    """One study that is being drawn."""

    def __init__(self, chance: _Chance) -> None:
        self._chance = chance
        self._task = chance.choice(sorted(TASKS))
        self._dense, self._restores = TASKS[self._task].dense, TASKS[self._task].restores
        self._privacy = chance.mostly("none", "patient", "site")
        has_grid = self._dense or self._restores or TASKS[self._task].boxes
        table = not has_grid and chance.seldom()
        self._dimensions = 0 if table else chance.mostly(2, 3)
        self._network = self._fitting_network()
        self._heavy = self._network in _HEAVY or (self._network in _HEAVY_TOO)
        colour = self._dimensions == 2 and chance.seldom()
        self._kind = Kind(self._dimensions or 2, colour, chance.mostly(True, False))
        self._several = TASKS[self._task].classifies and chance.seldom()

    def content(self) -> tuple[Content, Kind]:
        """Return what the file says, with the kind of its images."""
        content: Content = {
            "study": {"name": "drawn", "task": self._task},
            "data": self._data(),
            "model": self._model(),
            "training": self._training(),
            "federation": self._federation(),
            "evaluation": self._evaluation(),
            "simulation": self._simulation(),
        }
        self._give_sizes(content)
        self._give_recipe(content)
        self._let_lack(content)
        self._harmonise(content)
        if self._privacy != "none":
            content["privacy"] = self._promise()
        if self._privacy == "site":
            content["evaluation"]["keep"] = "last"
        return content, self._kind

    def _fitting_network(self) -> str:
        fitting = [
            name
            for name, entry in NETWORKS.items()
            if self._task in entry.tasks and self._dimensions in entry.dimensions
            if (name, self._dimensions) not in _TOO_SLOW
            if self._privacy != "patient" or name in PRIVATE_NETWORKS
        ]
        if self._task == "segmentation" and self._dimensions:
            fitting.append(_OF_MONAI)
        weights = [0.06 if name in (*_HEAVY, *_HEAVY_TOO) else 1.0 for name in fitting]
        return self._chance.choices(fitting, weights)[0]

    def _data(self) -> Content:
        chance, table = self._chance, not self._dimensions
        covariates: Sequence[Content] = (
            {"name": "age", "mean": 60.0, "scale": 10.0},
            {"name": "weight"},
            {"name": "sex", "values": ["f", "m"]},
        )
        count = chance.randint(1, 3) if table else chance.mostly(0, 1, 3)
        data: Content = {
            **self._answer(),
            "multi_label": self._several,
            "covariates": list(covariates[:count]),
            "covariate_scaling": chance.mostly("study", "site") if count else "study",
            "optional": [one["name"] for one in covariates[:count] if chance.seldom()],
        }
        if table:
            return {**data, "kind": "table"}
        channels = chance.mostly(["image"], ["image", "second"])
        intensity = chance.choice([name for name in _PRESETS if name not in ("light", "nnunet")])
        if self._restores:
            data = {}
        elif TASKS[self._task].boxes:
            data["optional"] = []
        elif len(channels) > 1:
            data["optional"] += [name for name in channels if chance.seldom()]
        return {
            **data,
            "dimensions": self._kind.dimensions,
            "colour": self._kind.colour,
            "channels": channels,
            "intensity": intensity,
            "augmentation": chance.choice(_PRESETS),
            "denoise": chance.seldom(),
            **self._harmonisation(intensity, channels),
        }

    def _answer(self) -> Content:
        """Draw the classes, or what is predicted where there are none."""
        chance, kind = self._chance, TASKS[self._task].outcome
        if not kind:
            return {"classes": list(CLASSES[: chance.randint(2, 3)])}
        if kind == "time":
            times = chance.choice([[365.0], [100.0, 300.0, 1000.0], [50.0, 5000.0]])
            return {"outcome": {"name": "death", "unit": "days", "times": times}}
        scale = chance.some({"mean": [50.0], "scale": [10.0, 25.0]})
        return {"outcome": {"name": "size", "unit": "ml", "range": [0.0, 100.0], **scale}}

    def _harmonisation(self, intensity: str, channels: Sequence[str]) -> Content:
        chance = self._chance
        if intensity == "ct" or not chance.seldom():
            return {}
        asked: Content = {"bias_correction": chance.mostly(True, False)}
        if chance.mostly(True, False):
            planes = len(channels) * (3 if self._kind.colour else 1)
            asked["landmarks"] = [[20.0 * step + 5 for step in range(11)]] * planes
            asked["foreground"] = chance.choice(["nonzero", "above-mean", "all"])
        return {"harmonisation": asked}

    def _model(self) -> Content:
        chance, entry = self._chance, NETWORKS[self._network]
        model: Content = {"network": self._network}
        if self._privacy == "patient":
            model |= self._private_normalisation()
        elif entry.normalisations and chance.random() < 1 / 2:
            model["normalisation"] = chance.choice(entry.normalisations)
        if model.get("normalisation") == "batch" and self._dimensions and self._network != "mlp":
            model.update(chance.some({"test_time_statistics": [0.1, 1.0]}))
        if entry.activations and chance.seldom():
            model["activation"] = chance.choice(["relu", "prelu", "gelu", "elu", "swish"])
        if entry.dropout and chance.seldom():
            model["dropout"] = 0.3
        model.update(self._widths())
        model.update(self._arguments())
        whole = self._restores or TASKS[self._task].boxes  # they have no tokens
        if self._dimensions and not whole and chance.seldom():
            model["fusion"] = chance.choice(["intermediate", "late"])
        if entry.adapters and chance.seldom() and "test_time_statistics" not in model:
            model["adapter_rank"] = chance.randint(1, 4)
        return model

    def _arguments(self) -> Content:
        if self._network != _OF_MONAI:
            return {}
        chosen = {"num_res_units": [1, 2], "dropout": [0.3], "act": ["RELU", "ELU"]}
        more = self._chance.some(chosen)
        return {"arguments": {"channels": [2, 4], "strides": [2], **more}}

    def _private_normalisation(self) -> Content:
        chance, entry = self._chance, NETWORKS[self._network]
        if not entry.flat and "batch" in entry.normalisations and chance.seldom():
            return {"normalisation": "batch", "fixer": "opacus"}
        return {"normalisation": chance.choice(PRIVATE_NETWORKS[self._network].normalisations)}

    def _widths(self) -> Content:
        chance, entry = self._chance, NETWORKS[self._network]
        if not entry.features:
            return {}
        fewest, most = entry.widths
        count = chance.randint(fewest, min(most, max(fewest, 3)))
        return {"features": [chance.choice([1, 2, 3, 4, 8]) for _ in range(count)]}

    def _training(self) -> Content:
        chance = self._chance
        losses = [name for name, tasks in LOSSES.items() if self._task in tasks]
        training = {
            "optimiser": chance.choice(["sgd", "sgd", "adam", "adamw"]),
            "learning_rate": chance.choice([1e-3, 1e-2]),
            "batch_size": 4 if self._heavy else chance.randint(1, 9),
            **chance.some(
                {
                    "loss": losses,
                    "weight_decay": [0.01],
                    "schedule": ["cosine", "polynomial", "step"],
                    "warmup": [0.1, 0.5, 1.0],
                }
            ),
        }
        key = "local_steps" if self._heavy else chance.choice(["local_steps", "local_epochs"])
        training[key] = 1 if self._heavy else chance.mostly(1, 2)
        if training["optimiser"] == "sgd" and chance.seldom():
            training["momentum"] = 0.9
        if self._privacy == "patient":
            return training
        training.update(chance.some({"gradient_clip": [1.0]}))
        if self._restores:
            training.update(chance.some({"masking": [{}, {"fraction": 0.3, "patch": 2}]}))
        else:
            training.update(chance.some({"class_weights": ["balanced"]}))
        if chance.seldom() and TASKS[self._task].classifies and not self._several:
            training["sampling"] = "balanced"
        if not self._heavy:  # a step of resnet50 at float16 takes a minute on a core
            training["precision"] = chance.mostly("float32", "bfloat16", "float16")
        return training

    def _federation(self) -> Content:
        chance = self._chance
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
            "rounds": 1 if self._heavy else chance.mostly(1, 2),
            "seed": chance.randint(0, 3),
            "compression": chance.mostly("none", "float16", "bfloat16", "int8", "int4", "top-k"),
            "options": {"assumed_hostile": 0} if hostile else {},
            **{key: chance.choice(choices[key]) for key in keys},
        }

    def _evaluation(self) -> Content:
        metrics = [
            name
            for name, entry in METRICS.items()
            if self._task in entry.tasks and not entry.surface
        ]
        fractions = self._chance.mostly((0.2, 0.2), (0.0, 0.2), (0.2, 0.0), (0.0, 0.0))
        return {
            "validation_fraction": fractions[0],
            "test_fraction": fractions[1],
            **self._chance.some(
                {
                    "metric": metrics,
                    "keep": ["best", "last"],
                    "score_bins": [10],
                    "overlap": [0.0],
                }
            ),
        }

    def _simulation(self) -> Content:
        chance = self._chance
        shifts = ("contrast", "bias-field", "noise", "blur", "scaling")
        return {
            "data": "folder",
            "split": chance.choice(["iid", "natural", "dirichlet", "quantity", "classes"]),
            "sites": chance.randint(2, 3) if self._heavy else chance.randint(1, 4),
            "compare": chance.random() < 1 / 8 and not self._heavy,
            "shift": [{"kind": chance.choice(shifts)}] if chance.seldom() else [],
        }

    def _give_sizes(self, content: Content) -> None:
        """Draw the size of the images and of patches, mostly what the network takes."""
        if not self._dimensions:
            return
        chance, entry = self._chance, NETWORKS[self._network]
        features = content["model"].get("features")
        step = 16 if entry.patches else entry.divisor_for(features)
        least = max(entry.minimum_for(features), step, 4)

        def size() -> list[int]:
            return [least + step * chance.seldom() for _ in range(self._dimensions)]

        how = chance.choice(["size", "patch", "both", "neither"]) if self._dense else "size"
        if how == "both":  # patches of images of any size
            content["data"]["size"] = [side + chance.randint(0, 3) for side in size()]
        elif how == "size":
            content["data"]["size"] = size()
        if how in ("patch", "both"):
            content["training"]["patch_size"] = size()
            content["training"]["patches_per_image"] = chance.randint(1, 2)
        if "size" in content["data"]:
            content["data"]["fit"] = chance.choice(["resize", "pad"])

    def _give_recipe(self, content: Content) -> None:
        """Draw what the recipes ask for: means of weights, softened labels, coarser levels."""
        chance, training = self._chance, content["training"]
        drawn = chance.some({"ema": [0.5, 0.99], "label_smoothing": [0.1], "mixup": [0.2]})
        soft = TASKS[self._task].classifies and not self._several
        soft = soft and training.get("loss") in (None, "cross-entropy")
        for key in [] if soft else [key for key in drawn if key != "ema"]:
            drawn.pop(key)
        if self._privacy == "patient" or not self._dimensions or content["data"].get("optional"):
            drawn.pop("mixup", None)
        training.update(drawn)
        if "momentum" in training and chance.mostly(True, False):
            training["nesterov"] = True
        if chance.seldom():
            content["federation"]["ema"] = chance.choice([0.5, 0.9])
        mirrors = content["data"].get("augmentation") in _MIRRORING and chance.seldom()
        if mirrors and not (TASKS[self._task].boxes or self._restores):
            content["evaluation"]["tta"] = "mirror"
        levels = len(content["model"].get("features") or (0,) * 4)
        plain = not content["data"].get("covariates") and not content["data"].get("optional")
        if self._network == "dynunet" and plain and self._privacy != "patient":
            content["model"].pop("fusion", None)
            content["model"]["deep_supervision"] = chance.randint(0, levels - 2)

    def _let_lack(self, content: Content) -> None:
        """Draw what is left out in training, and a site that has none of it."""
        optional = content["data"].get("optional", [])
        if optional and self._chance.seldom():
            content["training"]["modality_dropout"] = 0.3
        if optional and self._chance.seldom():
            names = optional[: self._chance.randint(1, len(optional))]
            lacking = {"names": names, "sites": [_sites_of(content)[0]]}
            content["simulation"]["lacking"] = [lacking]

    def _harmonise(self, content: Content) -> None:
        """Draw what ComBat would have fitted to each site."""
        data = content["data"]
        names = [one["name"] for one in data.get("covariates", [])]
        sites = _sites_of(content)
        if "weight" not in names or self._privacy != "none" or len(sites) < 2:
            return
        if self._chance.seldom():
            return
        preserve = ["sex"] if "sex" in names and self._chance.seldom() else []
        data["combat"] = {
            "features": ["age", "weight"],
            "preserve": preserve,
            "means": [60.0, 80.0],
            "effects": [[1.0, -1.0] if preserve else [], [-5.0, 5.0] if preserve else []],
            "sites": [
                {"name": name, "shifts": [1.0 + at, -2.0 * at], "scales": [1.0, 0.5 + at]}
                for at, name in enumerate(sites)
            ],
        }
        content["simulation"]["compare"] = False

    def _promise(self) -> Content:
        chance = self._chance
        privacy: Content = {"mode": self._privacy, "noise_multiplier": chance.choice([1.0, 2.0])}
        if self._privacy == "site":
            return {**privacy, "adaptive_clipping": chance.seldom()}
        return {
            **privacy,
            "sampling_rate": 0.1 if self._heavy else chance.choice([0.1, 0.5, 1.0]),
            **chance.some(
                {
                    "examples_per_patient": [1, 2],
                    "augmentation_copies": [1, 2],
                    "microbatch": [1, 3],
                    "gradients": ["loop", "opacus"],
                }
            ),
        }
