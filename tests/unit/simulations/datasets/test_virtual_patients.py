"""Virtual patients: deformed brains with the anatomy of a brain."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.studies.built_in import built_in

from wardround.common.errors import InputError
from wardround.common.study.loading import with_changes
from wardround.simulations.datasets.catalogue import (
    load_dataset,
)
from wardround.simulations.datasets.virtual_patients import draw_deformation


def test_virtual_brains_have_the_tissue_volumes_of_a_brain() -> None:
    study = built_in("brain-tissue", data__dimensions=3, data__size=[48, 56, 48])
    found = load_dataset("brain-tissue", {"patients": 3}, None, study)
    file, item = found.rows[1].mask.split("#")
    mask = np.load(file)[int(item)]
    assert mask.shape == (48, 56, 48)
    litres = np.bincount(mask.ravel()) * 3.5**3 / 1e6  # the field of 168 mm over 48 voxels
    # Adults: about 0.7 l grey and 0.5 l white (Luders et al. 2002); the template is of that order.
    assert 0.5 < litres[1] < 1.2
    assert 0.3 < litres[2] < 1.0
    image = np.load(found.rows[1].images["t1"].split("#")[0])[1].astype(float)
    assert image[mask == 2].mean() > image[mask == 1].mean() > image[mask == 0].mean()


def test_slices_belong_to_patients_and_patients_differ() -> None:
    study = built_in("brain-tissue", data__size=[32, 32])
    found = load_dataset("brain-tissue", {"patients": 8, "slices": 3}, None, study)
    assert Counter(Counter(row.patient for row in found.rows).values()) == {3: 8}
    images = np.load(found.rows[0].images["t1"].split("#")[0]).astype(float)
    assert images.shape == (24, 32, 32)
    assert np.abs(images[0] - images[3]).mean() > 1  # the same slice of two patients
    by_patient = {row.patient: row.split for row in found.rows}
    assert Counter(by_patient.values()) == {"train": 3, "validation": 1, "test": 4}


def test_the_front_of_the_head_is_up_and_the_ventricles_are_background() -> None:
    study = built_in("brain-tissue", data__size=[96, 96])
    found = load_dataset(
        "brain-tissue", {"patients": 1, "slices": 1, "displacement_mm": 0.0}, None, study
    )
    mask = np.load(found.rows[0].mask.split("#")[0])[0]
    rows, columns = np.nonzero(mask)
    middle_row, middle_column = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    assert 60 < (rows.max() - rows.min()) * 2 / 2 < 100  # half the length of a brain, in mm
    inside = mask[int(middle_row) - 8 : int(middle_row) + 9, int(middle_column) - 6 :][:, :13]
    assert (inside == 0).any()
    # The back of a brain is broader than its front: the widest row lies behind the middle.
    widths = [np.ptp(columns[rows == row]) if (rows == row).any() else 0 for row in range(96)]
    assert np.argmax(widths) > middle_row


def test_the_same_seed_draws_the_same_brains_once() -> None:
    options: dict[str, str | int | float | bool] = {"patients": 2, "slices": 1}
    study = built_in("brain-tissue", data__size=[24, 24])
    path = load_dataset("brain-tissue", options, None, study).rows[0].images["t1"].split("#")[0]
    first, written = np.load(path), Path(path).stat().st_mtime_ns
    load_dataset("brain-tissue", options, None, study)
    assert Path(path).stat().st_mtime_ns == written
    shutil.rmtree(Path(path).parent)
    load_dataset("brain-tissue", options, None, study)
    np.testing.assert_array_equal(np.load(path), first)
    other = load_dataset(
        "brain-tissue", options, None, with_changes(study, {"simulation.seed": 7})
    ).rows[0]
    assert not np.array_equal(np.load(other.images["t1"].split("#")[0]), first)


def test_a_missing_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*'nilearn>="):
        load_dataset("brain-tissue", {}, None, built_in("brain-tissue"))


def test_no_deformation_folds() -> None:
    """The Jacobian determinant, by finite differences, is positive even where amplitude is cut."""
    lower, upper = np.array([-84.0, -116.0, -74.0]), np.array([84.0, 80.0, 94.0])
    axes = [np.arange(low, high, 6.0) for low, high in zip(lower, upper, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    for seed in range(3):
        deformation = draw_deformation(np.random.default_rng(seed), lower, upper, 50.0)
        moved = deformation.template_points(grid.reshape(3, -1)).reshape(grid.shape)
        jacobian = np.stack([np.stack(np.gradient(part, 6.0)) for part in moved])
        determinants = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
        assert determinants.min() > 0
        assert determinants.std() > 0.05
