"""The transform of an installed package keeps shapes, kinds and classes, or is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.places.packages import write_package

from wardround.client.data.augmentation.registered import transformed
from wardround.client.data.batch import Batch
from wardround.common.errors import RunError
from wardround.common.files.packages.importing import forget_packages
from wardround.common.files.packages.snapshot import hash_of
from wardround.common.study.loading import parse_study

CODE = """
import torch


def turned(image, mask, generator):
    return image.flip(1), mask.flip(0)


def pictures(image, mask, generator):
    return torch.complex(image, image), mask


def between(image, mask, generator):
    return image, mask.float() + 0.5


def unknown(image, mask, generator):
    return image, torch.full_like(mask, 2)


def negative(image, mask, generator):
    return image, mask.long() - 1


def round_the_byte(image, mask, generator):
    return image, mask.long() + 256
"""
NAMES = ("turned", "pictures", "between", "unknown", "negative", "round_the_byte")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    points = "".join(f"{name} = tiny_ward.change:{name}\n" for name in NAMES)
    write_package(
        tmp_path,
        files={"tiny_ward/change.py": CODE},
        entry_points=f"[wardround.transforms]\n{points}",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield hash_of("tiny-ward")
    forget_packages()


def changed(name: str, package: str) -> Batch:
    study = parse_study(
        {
            "study": {"name": "changed", "task": "segmentation"},
            "data": {
                "classes": ["background", "organ"],
                "size": [32, 32],
                "augmentation": f"tiny-ward:{name}",
            },
            "model": {"network": "unet", "features": [4, 8]},
            "packages": {"tiny-ward": package},
        }
    )
    masks = (torch.arange(32).reshape(2, 4, 4) % 2).to(torch.uint8)
    batch = Batch(torch.rand(2, 1, 4, 4), None, masks)
    return transformed(batch, study, True, torch.Generator().manual_seed(0))


def test_image_and_mask_are_changed_together(package: str) -> None:
    found = changed("turned", package)
    assert found.targets.dtype == torch.uint8
    assert found.targets[0, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["pictures", "between"])
def test_another_kind_of_numbers_is_refused(package: str, name: str) -> None:
    with pytest.raises(RunError, match="shapes and types given"):
        changed(name, package)


@pytest.mark.parametrize("name", ["unknown", "negative", "round_the_byte"])
def test_a_class_that_the_study_has_not_is_refused(package: str, name: str) -> None:
    with pytest.raises(RunError, match="other classes than the study's"):
        changed(name, package)
