"""Model folders without training: a network as it begins, which finds something at random."""

from collections.abc import Mapping
from pathlib import Path

from wardround.client.clinic.inference.predictor import load_predictor
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study

SEGMENTS = {
    "study": {"name": "blocks", "task": "segmentation"},
    "data": {
        "dimensions": 3,
        "classes": ["background", "hippocampus", "bright block"],
        "size": [16, 16, 8],
        "intensity": "mr",
    },
    "model": {"network": "unet", "features": [4, 8], "normalisation": "group"},
    "training": {"loss": "dice-ce", "batch_size": 1},
    "federation": {"rounds": 2},
}
CLASSIFIES = {
    "study": {"name": "bright", "task": "classification"},
    "data": {
        "dimensions": 2,
        "classes": ["normal", "abnormal"],
        "size": [16, 16],
        "intensity": "mr",
    },
    "model": {"network": "small-cnn", "features": [4, 8], "normalisation": "group"},
    "federation": {"rounds": 2},
}


def untrained_model(
    folder: Path,
    content: dict[str, dict[str, object]],
    seed: int = 3,
    added: Mapping[str, float] | None = None,
) -> Path:
    """Write a model folder for a study, with the network as a seed makes it.

    Args:
        added: What is added to the numbers of a weight, by its name.
    """
    study = parse_study(content)
    weights = read_parameters(build_network(study, seed))
    for name, number in (added or {}).items():
        weights[name] = weights[name] + number
    contract = Contract(
        wardround="0",
        name="untrained",
        study=study_content(study),
        study_digest=study.digest,
        parameters=digest(weights),
        seen_note="it was not trained",
    )
    write_model_folder(folder, weights, contract, (), ("# Untrained\n", "None.\n"))
    load_predictor(folder, "cpu")
    return folder
