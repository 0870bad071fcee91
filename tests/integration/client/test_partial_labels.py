"""A hospital that has annotated some of the classes trains and is measured on these alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.hospitals.hospital import ask, instruction_for
from tests.support.hospitals.image_ward import volume, ward_study, write_ward

from wardround.client.app import close_sessions
from wardround.common.messages.instructions import TRAIN, Instruction
from wardround.common.messages.replies import SiteUpdate, unpack_update
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.sums import MetricSums
from wardround.common.study.study import Study

LABELS = '[labels]\nannotated = ["kidney"]\n'


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def trained(folder: Path, study: Study) -> tuple[SiteUpdate, Instruction]:
    instruction = instruction_for(folder, 1, study)
    return unpack_update(ask(folder, TRAIN, instruction, study), study), instruction


def ward(tmp_path: Path, study: Study) -> Path:
    volumes = [volume(seed) for seed in range(8)]
    masks = [(volume(seed) > 100).astype("uint8") * 2 for seed in range(8)]
    return write_ward(
        tmp_path / "north", volumes, study, masks=masks, labels=LABELS, metrics='"sums"'
    )


def test_a_site_that_lacks_a_class_is_scored_on_the_others(tmp_path: Path) -> None:
    study = ward_study(labels={"partial": True})
    update, _ = trained(ward(tmp_path, study), study)
    assert isinstance(update.metrics, MetricSums)
    sums = update.metrics.measured
    assert isinstance(sums, SegmentationSums)
    assert sums.dice_cases.tolist()[1:] == [0, 1]
    assert sums.false_positives[1] == 0


def test_a_private_step_takes_partial_labels_too(tmp_path: Path) -> None:
    study = ward_study("patient", labels={"partial": True})
    update, instruction = trained(ward(tmp_path, study), study)
    moved = [
        not torch.equal(update.parameters[name], before)
        for name, before in instruction.parameters.items()
    ]
    assert any(moved)
    assert all(tensor.isfinite().all() for tensor in update.parameters.values())
