"""A hospital with small images, whose patients may be chosen one by one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from tests.support.hospitals.hospital import context_of, write_policy

from wardround.client.app import app
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.statistics import STATISTICS
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

CLASSES = ["background", "liver", "kidney"]


def ward_study(
    mode: str = "none",
    statistics: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    **sections: Mapping[str, Any],
) -> Study:
    content: dict[str, Any] = {
        "study": {"name": "ward", "task": "segmentation"},
        "data": {
            "dimensions": 3,
            "classes": CLASSES,
            "intensity": "ct",
            "size": [16, 16, 16],
            "fit": "pad",
            "labels": dict(labels or {}),
        },
        "model": {"network": "unet", "features": [4, 8], "normalisation": "group"},
        "training": {"batch_size": 2, "local_steps": 1},
        "federation": {"rounds": 1},
        "evaluation": {"validation_fraction": 0.1, "test_fraction": 0.1},
    }
    if mode == "patient":
        content["privacy"] = {"mode": mode, "epsilon": 8.0, "sampling_rate": 0.5}
    if statistics is not None:
        content["statistics"] = {"ask": True, **statistics}
    for name, keys in sections.items():
        content[name] = {**content.get(name, {}), **keys}
    return parse_study(content)


def volume(seed: int, size: Sequence[int] = (12, 12, 8)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(40, 100, size).astype(np.float32)


def write_ward(
    folder: Path,
    volumes: Sequence[NDArray[np.float32]],
    study: Study,
    spacings: Sequence[Sequence[float]] = (),
    masks: Sequence[NDArray[np.uint8]] = (),
    labels: str = "",
    **policy: str,
) -> Path:
    """Write a hospital of one training patient a volume, whose mask marks a corner."""
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n{labels}')
    rows = ["patient,image,mask,split"]
    for number, voxels in enumerate(volumes):
        affine = np.diag([*(spacings[number] if spacings else (1.0, 1.0, 1.0)), 1.0])
        mask = np.zeros(voxels.shape, np.uint8)
        mask[:4, :4, :4], mask[4:6, :4, :4] = 1, 2
        if masks:
            mask = masks[number]
        nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / f"{number}.nii")
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{number}-mask.nii")
        part = "train" if number >= 2 else ("validation", "test")[number]
        rows.append(f"CANARY{number:03d},{number}.nii,{number}-mask.nii,{part}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    said = {"statistics": '"yes"', "smallest_cell": "1", "smallest_cohort": "1"}
    write_policy(folder, **{"approved": f'["{study.digest}"]', **said, **policy})
    return folder


def ask_statistics(folder: Path, study: Study, digest: str | None = None) -> RecordDict:
    """Return what a site answers to a server that asks for statistics."""
    claim_identity(1)
    content = RecordDict({"instruction": ConfigRecord({"digest": digest or study.digest})})
    message = Message(content, 7, STATISTICS)
    stamp(message, "message-1")
    reply = app(message, context_of(folder, study))
    assert not reply.has_error()
    return reply.content
