"""Two rounds of every task and objective, done on the stand-in device and beside it on the CPU.

Prints as JSON what was apart, or what failed.

python -m tests.unit.client.devices.rounds FOLDER
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.client.devices.jobs import batches_of, session_on, steps_of
from tests.unit.client.devices.names import ANSWERED, COUNTED, EXPLAINED, ROUNDS
from tests.unit.client.devices.stand_in import DEVICE, generator, present

# isort: split
import torch
from safetensors.torch import save
from torch import Tensor

import wardround
from wardround.client.clinic.explanations.methods import METHODS
from wardround.client.clinic.explanations.randomisation import with_random_layers
from wardround.client.clinic.inference.ensemble import Ensemble
from wardround.client.clinic.inference.predictor import Predictor
from wardround.client.clinic.inference.views import views_of
from wardround.client.clinic.monitoring.case import said_by
from wardround.client.data.augmentation import applied, rare_changes
from wardround.client.data.reading.image import Image
from wardround.client.privacy.evaluation import patient_vectors
from wardround.client.site.device import arranged_for
from wardround.client.training.case_predictions import (
    classified_cases,
    found_cases,
    outcome_cases,
    segmented_cases,
)
from wardround.client.training.evaluation import evaluating
from wardround.client.training.objectives.corrections import CONTROL
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.models.card import licence_text
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import open_model_folder, write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import store_weights
from wardround.common.models.start import WeightsOrigin
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

_CPU = torch.device("cpu")
_RUN = new_run()
_SPLITS = ["train"] * 8 + ["validation"] * 12 + ["test"] * 4
_SIDE = 16


def study_of(task: str, **sections: dict[str, Any]) -> Study:
    """Return a small study; sections are merged over it."""
    network = {
        "segmentation": {"network": "unet", "features": [4, 8]},
        "pretraining": {"network": "unet", "features": [4, 8]},
        "detection": {"network": "retinanet", "features": [4, 8, 8], "anchors": [6, 10]},
    }
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "device", "task": task},
        "data": {"classes": ["a", "b"], "size": [_SIDE, _SIDE]},
        "model": network.get(task, {"network": "small-cnn", "features": [4, 8]}),
        # Adam would make a step of whatever differs in the last bit.
        "training": {"batch_size": 2, "local_steps": 2, "optimiser": "sgd"},
    }
    for name, section in sections.items():
        content.setdefault(name, {}).update(section)
    if task in ("regression", "survival", "pretraining"):
        del content["data"]["classes"]
    return parse_study(content)


def _strategy(name: str, **sections: dict[str, Any]) -> Study:
    return study_of("classification", federation={"strategy": name}, **sections)


_AGE = {"covariates": [{"name": "age", "mean": 50.0, "scale": 10.0}]}
_FUSED = {**_AGE, "optional": ["age", "second"], "channels": ["first", "second"]}
_DROPPED = {"modality_dropout": 0.5}
_TIMES = {"outcome": {"name": "death", "unit": "days", "times": [20, 40, 60]}}
_NUMBER = {"outcome": {"name": "age", "unit": "years", "range": [0, 100]}}
_MIRRORED = {"tta": "mirror"}
_GROUPS = {"normalisation": "group"}
_PRIVATE = {
    "mode": "patient",
    "epsilon": 50.0,
    "sampling_rate": 0.5,
    "expected_patients": 4,
}
_MAKERS: dict[str, Callable[[], Study]] = {
    "detection": lambda: study_of(
        "detection", data={"augmentation": "histology"}, evaluation=_MIRRORED
    ),
    "regression": lambda: study_of("regression", data=_NUMBER),
    "survival": lambda: study_of("survival", data=_TIMES),
    "cox": lambda: study_of("survival", data=_TIMES, training={"loss": "cox", "batch_size": 4}),
    "restoring": lambda: study_of("pretraining"),
    "contrasting": lambda: study_of(
        "pretraining",
        data={"augmentation": "xray"},
        model={"network": "small-cnn"},
        training={"loss": "nt-xent"},
    ),
    "fusion, early": lambda: study_of("classification", data=_FUSED, training=_DROPPED),
    "fusion, intermediate": lambda: study_of(
        "classification",
        data=_FUSED,
        model={**_GROUPS, "fusion": "intermediate"},
        training=_DROPPED,
    ),
    "fusion, late": lambda: study_of(
        "segmentation", data=_FUSED, model={**_GROUPS, "fusion": "late"}, training=_DROPPED
    ),
    "mirrored views": lambda: study_of(
        "segmentation", data={"augmentation": "histology"}, evaluation=_MIRRORED
    ),
    "adversarial": lambda: study_of("classification", training={"adversarial": {"steps": 2}}),
    "mixed images": lambda: study_of("classification", training={"mixup": 0.4}),
    "averaged weights": lambda: study_of("classification", training={"ema": 0.9}),
    **{
        name: (lambda name=name: _strategy(name))
        for name in (
            "fedprox",
            "scaffold",
            "feddyn",
            "moon",
            "fedrep",
            "ditto",
            "apfl",
            "fedavg-finetune",
        )
    },
    "coral": lambda: study_of("classification", federation={"objective": "coral"}),
    "small-features": lambda: study_of(
        "classification", federation={"objective": "small-features"}
    ),
    "aligned-features": lambda: study_of(
        "classification",
        model={"normalisation": "batch"},
        federation={"objective": "aligned-features"},
    ),
    "ewc": lambda: _continued("ewc"),
    "lwf": lambda: _continued("lwf"),
    "replay": lambda: _continued("replay"),
    "masked": lambda: study_of(
        "classification",
        federation={"secure_aggregation": True, "minimum_sites": 3},
        evaluation={"keep": "last"},
    ),
    "private": lambda: study_of(
        "classification", model=_GROUPS, privacy=_PRIVATE, evaluation={"keep": "last"}
    ),
}


def _continued(method: str) -> Study:
    """Return a study of a second wave, whose parent's weights are stored here."""
    study = study_of("classification")
    weights = {
        name: tensor.detach().clone().contiguous()
        for name, tensor in build_network(study, seed=7).state_dict().items()
    }
    origin = WeightsOrigin("made", "", "drawn", study.study.task, "none", study.digest)
    content = save(weights, origin.as_metadata())
    named = sha256(content).hexdigest()
    store_weights(named, content)
    return with_changes(
        study,
        {
            "continual.wave": 2,
            "continual.method": method,
            "model.weights_sha256": named,
            "continual.parent": study.digest,
            "continual.model": digest(weights),
        },
    )


def write_site(folder: Path, study: Study) -> Path:
    """Write a site of sixteen patients with whatever a study may ask for."""
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text('name = "site"\n')
    numbers, count = np.random.default_rng(0), len(_SPLITS)
    values = numbers.normal(size=(2, count, _SIDE, _SIDE)).astype(np.float32)
    masks = numbers.integers(0, 2, (count, _SIDE, _SIDE)).astype(np.uint8)
    np.savez(folder / "set.npz", first=values[0], second=values[1], masks=masks)
    images = ("image.first", "image.second") if len(study.data.channels) > 1 else ("image",)
    columns = ("patient", "split", "age", "wave", "label", "boxes", "mask", *images)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number, split in enumerate(_SPLITS):
            lacks = number % 4 == 1 and bool(study.data.optional)
            found = [f"set.npz#first#{number}", "" if lacks else f"set.npz#second#{number}"]
            low, high = 2 + number % 4, 8 + number % 5
            writer.writerow(
                (
                    f"p{number}",
                    split,
                    "" if lacks else 40 + number,
                    1 + number % 2,
                    _label(study, number),
                    "none" if number % 4 == 3 else f"{'ab'[number % 2]} {low} {low} {high} {high}",
                    f"set.npz#masks#{number}",
                    *found[: len(images)],
                )
            )
    return folder


def _label(study: Study, number: int) -> str:
    if study.task.outcome == "time":
        return f"{5 + 4 * number};{number % 2}"
    return f"{30 + number}.5" if study.task.outcome else "ab"[number % 2]


def rounds_of(name: str, study: Study, folder: Path) -> dict[str, Any]:
    """Train two rounds, measure, and have every examination answered; say what is apart."""
    there, here = (
        list(_round(device, study, write_site(folder / device.type, study)))
        for device in (DEVICE, _CPU)
    )
    each = [_apart(one, other) for one, other in zip(there, here, strict=True)]
    return {"apart": max(each), "each": each}


def _round(device: torch.device, study: Study, folder: Path) -> Iterator[Any]:
    """Yield what rounds come to: updates, losses, and answers.

    What is counted by bins of a score is not compared: the last bit of a score may move a count.
    """
    session = session_on(device, study, folder)
    model = read_parameters(session.context.network)
    if study.federation.secure_aggregation:
        model = {n: t for n, t in model.items() if n in session.context.layout.shared}
    auxiliary = _auxiliary(study, model)
    for number in (1, 2):
        order = Instruction(study.digest, _RUN, number, model, auxiliary=auxiliary)
        if study.privacy.mode != "none":  # whose noise nobody draws twice
            session.make_steps(order, 2)
            continue
        update = session.train(order)
        model = update.parameters if study.federation.compression == "none" else model
        yield update.parameters
        yield update.auxiliary
    if study.privacy.mode == "none":
        order = Instruction(
            study.digest, _RUN, 2, model, personal=session.context.plan.personalised
        )
        metrics = session.evaluate(replace(order, split="test")).metrics
        assert metrics is not None
        yield metrics.loss
    cohort, network = session.cohorts.test, session.context.network
    cohort.prepare()
    if not study.task.restores:
        cases = _cases(study)(network, cohort, study, device)
        is_drawn = study.task.boxes or study.privacy.mode != "none"  # by bins, or from noise
        yield 0 if is_drawn else cases
    if study.contrasts:
        return  # it compares patients: nobody's share alone is measured
    with evaluating(network):
        yield len(list(patient_vectors(network, cohort, study, device, session.loss)))


def _cases(study: Study) -> Callable[..., Any]:
    if study.task.boxes:
        return found_cases
    if study.task.dense:
        return segmented_cases
    return outcome_cases if study.task.outcome else classified_cases


def _auxiliary(study: Study, model: Parameters) -> Parameters:
    """Return what a server sends beside the model."""
    if study.federation.strategy != "scaffold":
        return {}
    return {CONTROL + name: torch.zeros_like(tensor) for name, tensor in model.items()}


def answers_of(name: str, study: Study, folder: Path) -> dict[str, Any]:
    """Have a model predict, alone and with another one's vote, and keep what monitoring keeps."""
    folder.mkdir(parents=True)
    models = tuple(
        open_model_folder(_model_folder(folder / str(seed), study, seed), None) for seed in (0, 1)
    )
    answers = []
    for device in (DEVICE, _CPU):
        found = []
        for some in (models[:1], models):
            networks = tuple(
                arranged_for(one.network().to(device), device, "float32") for one in some
            )
            ensemble = Ensemble(some, networks, device, views_of(study, name == "mirrored views"))
            predictor = Predictor(ensemble, uncertainty=True)
            prepared = [
                predictor.prepare(_picture(number, study), _texts(study)) for number in range(2)
            ]
            found += [said_by(one, False) for one in predictor.predict_prepared(prepared)]
        answers.append(found)
    return {"apart": _apart([one.outputs for one in answers[0]], [o.outputs for o in answers[1]])}


def _picture(number: int, study: Study) -> list[Image]:
    values = np.random.default_rng(number).normal(size=(1, _SIDE, _SIDE)).astype(np.float32)
    one = Image(values, (1.0, 1.0), None)
    return [one] * max(1, len(study.data.channels))


def _texts(study: Study) -> list[str]:
    return ["55" for _ in study.data.covariates]


def _model_folder(folder: Path, study: Study, seed: int) -> Path:
    weights = read_parameters(build_network(study, seed))
    contract = Contract(
        wardround=wardround.__version__,
        name="model",
        study=study_content(study),
        study_digest=study.digest,
        parameters=digest(weights),
    )
    write_model_folder(folder, weights, contract, (), ("card", licence_text("none")))
    return folder


def explanation(name: str) -> dict[str, Any]:
    """Explain one prediction, and hold it against a network of random weights."""
    study = study_of("classification", data=_AGE)
    image = torch.randn(1, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    inputs, found = (image, torch.tensor([[0.5]])), []
    for device in (DEVICE, _CPU):
        network = build_network(study, 0).to(device).eval()
        drawn = with_random_layers(network, ["covariate_layer"], 1)
        moved = tuple(one.to(device) for one in inputs)
        found += [METHODS[name](one, moved, 1).values for one in (network, drawn)]
    return {"apart": _apart(found[:2], found[2:])}


def _apart(first: Any, second: Any) -> float:
    """Return the largest difference of numbers of one structure."""
    if isinstance(first, Tensor):
        return _apart(first.detach().cpu().numpy(), second.detach().cpu().numpy())
    if isinstance(first, np.ndarray | float | int):
        one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        assert one.shape == other.shape, (one.shape, other.shape)
        assert np.array_equal(np.isnan(one), np.isnan(other))
        return float(np.nan_to_num(np.abs(one - other)).max(initial=0.0))
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max((_apart(first[key], second[key]) for key in first), default=0.0)
    if isinstance(first, list | tuple):
        assert len(first) == len(second)
        return max(map(_apart, first, second), default=0.0)
    if first is None or isinstance(first, str):
        assert first == second
        return 0.0
    fields = getattr(first, "__slots__", None) or vars(first)
    return max((_apart(getattr(first, n), getattr(second, n)) for n in fields), default=0.0)


def main() -> None:
    """Do all of it; what fails says why."""
    applied.Generator = rare_changes.Generator = generator  # type: ignore[assignment, misc] # torch knows no other way
    folder, results = Path(sys.argv[1]), dict[str, Any]()
    only = sys.argv[2:]

    def note(kind: str, name: str, job: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        if only and name not in only:
            return
        try:
            with present():
                results[f"{kind} {name}"] = job(name, *arguments)
        except Exception as error:
            import traceback

            traceback.print_exc()
            results[f"{kind} {name}"] = {"failed": f"{type(error).__name__}: {error}"[:400]}
        sys.stderr.write(f"{kind} {name}: {results[f'{kind} {name}']}\n")

    studies = [_MAKERS[name]() for name in ROUNDS]
    results["studied"] = {
        "tasks": sorted({study.study.task for study in studies}),
        "objectives": sorted({plan_of(study).objective for study in studies}),
    }
    for name in ROUNDS:
        note("rounds", name, rounds_of, _MAKERS[name](), folder / "rounds" / name.replace(" ", "-"))
    for name in COUNTED:
        site = write_site(folder / "counted" / name.replace(" ", "-"), _MAKERS[name]())
        note("steps", name, lambda name, site: steps_of(_MAKERS[name](), site), site)
        note("batches", name, lambda name, site: batches_of(_MAKERS[name](), site, False), site)
    for name in ANSWERED:
        note("answers", name, answers_of, _MAKERS[name](), folder / "answers" / name)
    for name in EXPLAINED:
        note("explained", name, explanation)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
