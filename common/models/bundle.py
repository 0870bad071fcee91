"""A model as a MONAI bundle, which ``python -m monai.bundle run`` understands."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wardround.common.errors import ModelError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.models.card import NOT_FOR_DIAGNOSIS
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.lora import merge_adapters
from wardround.common.models.model_folder import (
    CARD,
    LICENCE,
    ModelFolder,
)
from wardround.common.models.networks.named_once import under_all_names
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import save_model
from wardround.common.parameters.schema import read_parameters
from wardround.common.runtime.printable import printable
from wardround.common.security.lineage import LINEAGE_FILE
from wardround.common.study.loading import parse_study
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.study import Study

METADATA, INFERENCE, OURS = "metadata.json", "inference.json", "wardround.json"
OWN_NETWORK = f"{__name__}.network_for"  # the definition of a network that MONAI does not have
_MOST_LICENCE = 4_000  # characters; all of it is the file LICENSE
_SIGMA = 0.125  # of a window's Gaussian, as ours slide


def write_bundle(model: ModelFolder, folder: Path) -> None:
    """Write a model as a bundle that ``python -m monai.bundle run`` understands.

    LoRA adapters are merged into the layers that they lie on.

    Where the network is one of MONAI's own as it is, only the preprocessing needs wardround;
    otherwise the network does too.

    Raises:
        ModelError: The folder is there, or cannot be written, or the model is not complete.
    """
    if folder.exists():
        msg = f"{folder} exists already: choose another --out."
        raise ModelError(msg)
    network, weights = model.network(), model.weights()
    contract, study = model.contract, model.study
    if study.model.adapter_rank is not None:
        merge_adapters(network)
        weights = read_parameters(network)
        study = _without_adapters(study)
        contract = contract.model_copy(
            update={
                "study": study_content(study),
                "study_digest": study.digest,
                "parameters": digest(weights),
            }
        )
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name in ("configs", "models", "docs"):
            (part / name).mkdir(parents=True)
        configs = part / "configs"
        _put(configs / METADATA, _metadata(model, network))
        _put(configs / INFERENCE, _inference(study, network))
        _put(configs / OURS, json.loads(contract.model_dump_json()))
        listed = under_all_names(network, weights)
        torch.save(listed, part / "models" / "model.pt")
        save_model(part / "models" / "model.safetensors", listed, {}, durable=False)
        shutil.copyfile(model.path / CARD, (part / "docs" / "README").with_suffix(".md"))
        shutil.copyfile(model.path / LICENCE, part / "LICENSE")
        if model.lineage:
            (part / "docs" / LINEAGE_FILE).write_bytes(model.lineage)
        part.replace(folder)
    except OSError as error:
        msg = f"cannot write the bundle {folder} ({error.strerror}): choose another --out."
        raise ModelError(msg) from None


def _without_adapters(study: Study) -> Study:
    """Return what a merged network is described by: a study that trains it as a whole."""
    plain = {"adapter_rank": None, "adapter_scale": 1.0, "weights_sha256": None}
    federation = FederationSection(rounds=study.federation.rounds, seed=study.federation.seed)
    return study.model_copy(
        update={"model": study.model.model_copy(update=plain), "federation": federation}
    )


def network_for(contract: str) -> nn.Module:
    """Return the untrained network of a contract file: what ``inference.json`` asks for.

    Args:
        contract: Path of ``configs/wardround.json``.
    """
    from wardround.common.models.networks.registry import build_network

    found = Contract.model_validate_json(Path(contract).read_bytes())
    return build_network(parse_study(dict(found.study), planned=False), 0)


def _metadata(model: ModelFolder, network: nn.Module) -> dict[str, Any]:
    from importlib.metadata import version

    study = model.study
    size = list(study.input_size or ("*",) * study.data.dimensions)
    is_image = study.data.kind == "image"
    gives_image = study.task.dense or (study.task.restores and not study.contrasts)
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"round {model.contract.round} of run {model.contract.run}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"wardround": model.contract.wardround},
        "name": study.name,
        "task": study.study.task,
        "description": study.study.description or f"A model of the study {study.name}.",
        "authors": "the hospitals of the study",
        "copyright": "see LICENSE",
        "data_licence": printable(" ".join(model.licence.split()), _MOST_LICENCE),
        "intended_use": NOT_FOR_DIAGNOSIS,
        "data_type": "image" if is_image else "table",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": study.data.intensity,
                    "num_channels": study.data.planes if is_image else study.data.covariate_width,
                    "spatial_shape": size if is_image else [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": study.training.patch_size is not None,
                    "channel_def": {str(i): name for i, name in enumerate(study.data.channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": _output_type(study),
                    "format": "segmentation" if study.task.dense else _output_format(study),
                    "num_channels": len(_output_names(study)),
                    "spatial_shape": size if gives_image else [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": study.training.patch_size is not None,
                    "channel_def": {str(i): name for i, name in enumerate(_output_names(study))},
                }
            },
        },
        "wardround": {
            "study_digest": model.contract.study_digest,
            "model_digest": model.digest,
            "network": "MONAI's own" if _definition(network) else "built by wardround",
        },
    }


def _output_type(study: Study) -> str:
    if study.task.dense or (study.task.restores and not study.contrasts):
        return "image"
    return "array" if study.task.outcome or study.task.boxes else "probabilities"


def _output_format(study: Study) -> str:
    if study.task.boxes:
        return "boxes"  # (P, 2 + 2 dims) of each image, in voxels of what the network sees
    # Of a number the network's own scale: [data.outcome] of the study in wardround.json says it.
    return study.study.task if study.task.outcome else "classes"


def _output_names(study: Study) -> tuple[str, ...]:
    if study.task.boxes:
        axes = range(study.data.dimensions)
        return ("score", "class", *(f"{end} {axis}" for end in ("low", "high") for axis in axes))
    if study.task.restores:
        return study.data.classes or tuple(map(str, range(study.output_count)))
    if not study.task.outcome:
        return study.data.classes
    return (study.outcome.name,) * study.output_count


def _definition(network: nn.Module) -> dict[str, Any] | None:
    """Return MONAI's definition of a network that is one of MONAI's as it was built."""
    found = getattr(network, "monai_definition", None)
    return dict(found) if isinstance(found, dict) else None


def _inference(study: Study, network: nn.Module) -> dict[str, Any]:
    contract = f"$@bundle_root + '/configs/{OURS}'"
    windows = study.training.patch_size
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if study.task.dense and windows is not None:
        inferer = {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(windows),
            "sw_batch_size": study.training.batch_size,
            "overlap": study.evaluation.overlap,
            "mode": "gaussian",
            "sigma_scale": _SIGMA,
        }
    answer = "@inferer(case['image'].to(@device), @network).detach()"
    post: dict[str, Any] = {}
    if study.task.boxes:
        places = "wardround.client.clinic.inference.bundle_input.BoxesFound"
        post = {"postprocessing": {"_target_": places, "contract": contract}}
        answer = f"@postprocessing({answer})"
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cpu')",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*')))",
        "network_def": _definition(network) or {"_target_": OWN_NETWORK, "contract": contract},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "wardround.client.clinic.inference.bundle_input.PreparedImage",
            "contract": contract,
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": inferer,
        **post,
        "weights": "$torch.load(@bundle_root + '/models/model.pt', weights_only=True)",
        "run": [
            "$@network.load_state_dict(@weights)",
            "$@network.eval()",
            "$os.makedirs(@output_dir, exist_ok=True)",
            f"$[torch.save({answer}, "
            "os.path.join(@output_dir, str(number) + '.pt')) "
            "for number, case in enumerate(@dataloader)]",
        ],
    }


def _put(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(content, indent=4) + os.linesep, BY_UMASK, durable=False)
