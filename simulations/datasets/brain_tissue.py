"""Brain tissue: virtual patients from the MNI template that nilearn's wheel ships. No download."""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError, install_command
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import cache_folder
from wardround.simulations.datasets.virtual_patients import Anatomy, Points, draw_deformation

CLASSES = ("background", "grey matter", "white matter")
_GENERATION = 1  # count up when the same options give other pixels: an old cache is then left alone
_MAPS = ("t1", "gm", "wm")
_CENTRE_MM = np.array([0.0, -18.0, 10.0])  # middle of the brain in MNI space
_FIELD_MM = np.array([168.0, 196.0, 168.0])  # what the smallest image still shows
_SECOND = "second_contrast.npy"
_SYNTHETIC = (
    "The channel t2 is synthetic: made from the template's tissue maps, with noise. No scanner "
    "took it."
)
# Grey values as in a T2-weighted image, where fluid is bright and white matter dark.
_FLUID, _GREY, _WHITE = 230.0, 150.0, 90.0
_SECOND_NOISE = 18.0  # deviation, in grey values
_SLICES_MM = (0.0, 40.0)  # from the basal ganglia to the roof of the ventricles


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is drawn; every field enters the name of the cache."""

    patients: int
    slices: int
    size: tuple[int, ...]
    displacement_mm: float
    seed: int


def _load(request: DataRequest) -> Examinations:
    plan, has_second = _plan(request), bool(request.options["second_contrast"])
    if not 1 <= (waves := request.number("waves")) <= plan.patients:
        msg = f"brain-tissue cannot come in {waves} waves: give 1 to {plan.patients}, its patients."
        raise InputError(msg)
    folder = _generated(plan, _template_files(), has_second)
    splits = _splits(plan, request.study)
    rows = tuple(
        PublicExamination(
            patient=f"patient-{item // plan.slices:04d}",
            images={
                "t1": f"{folder / 'images.npy'}#{item}",
                **({"t2": f"{folder / _SECOND}#{item}"} if has_second else {}),
            },
            mask=f"{folder / 'masks.npy'}#{item}",
            split=splits[item // plan.slices],
            wave=1 + item // plan.slices % waves,
        )
        for item in range(plan.patients * plan.slices)
    )
    note = (
        f"The {plan.patients} patients are virtual: one real brain (the MNI template), "
        "deformed smoothly and at random."
    )
    notes = (note, _SYNTHETIC) if has_second else (note,)
    return Examinations(rows, ENTRY.facts("brain-tissue"), notes)


def _plan(request: DataRequest) -> _Plan:
    data, count = request.study.data, len(request.study.data.classes)
    if count != len(CLASSES) and not request.study.task.restores:
        msg = f"brain-tissue has {len(CLASSES)} classes, data.classes {count}: set {list(CLASSES)}."
        raise InputError(msg)
    plan = _Plan(
        patients=request.number("patients"),
        slices=request.number("slices") if data.dimensions == 2 else 1,
        size=data.size or ((96, 96) if data.dimensions == 2 else (48, 56, 48)),
        displacement_mm=float(request.options["displacement_mm"]),
        seed=request.study.simulation.seed,
    )
    if plan.patients < 1 or plan.slices < 1 or min(plan.size) < 8 or plan.displacement_mm < 0:
        msg = (
            f"brain-tissue cannot draw {plan.patients} patients with {plan.slices} slices of size "
            f"{list(plan.size)}: give at least 1 patient, 1 slice, 8 pixels and 0 mm."
        )
        raise InputError(msg)
    return plan


def _splits(plan: _Plan, study: Study) -> list[str]:
    """Return each patient's split; drawn in the study's shares, so that few patients suffice."""
    test = round(study.evaluation.test_fraction * plan.patients)
    validation = round(study.evaluation.validation_fraction * plan.patients)
    train = plan.patients - test - validation
    names = ["test"] * test + ["validation"] * validation + ["train"] * train
    order = np.random.default_rng([plan.seed, plan.patients]).permutation(plan.patients)
    return [names[place] for place in order]


def _template_files() -> tuple[Path, ...]:
    """Return the T1, grey and white matter files, without importing nilearn (2 s)."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        install = install_command("simulation")
        msg = f"brain-tissue needs the MNI template of nilearn, which is not installed: {install}"
        raise InputError(msg)
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    files = [sorted(data.glob(f"mni_icbm152_{kind}_*.nii*")) for kind in _MAPS]
    if not all(files):
        install = f"{install_command('simulation')} --force-reinstall"
        msg = f"nilearn is installed without the MNI template: {install}"
        raise InputError(msg)
    return tuple(found[0] for found in files)


def _generated(plan: _Plan, files: tuple[Path, ...], has_second: bool) -> Path:
    """Return the folder with ``images.npy`` and ``masks.npy``, drawn unless it is there."""
    drawn = [_GENERATION, repr(plan), *([_SECOND] if has_second else [])]
    identity = hashlib.sha256(json.dumps(drawn).encode())
    for file in files:
        identity.update(file.read_bytes())
    folder = cache_folder() / "brain-tissue" / identity.hexdigest()[:16]
    if (folder / "masks.npy").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            images, second, masks = _draw(plan, _read_anatomy(files, plan))
            np.save(temporary / "images.npy", images)
            if has_second:
                np.save(temporary / _SECOND, second)
            np.save(temporary / "masks.npy", masks)
            temporary.chmod(0o755)
            _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        msg = (
            f"cannot write the virtual patients to {folder.parent} ({error.strerror}): "
            "set WARDROUND_CACHE to a folder with room."
        )
        raise InputError(msg) from error
    return folder


def _publish(temporary: Path, folder: Path) -> None:
    """Give the finished folder its name; another process may have been quicker, with the same."""
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / "masks.npy").exists():
            raise


def _pixel_mm(plan: _Plan) -> float:
    field = _FIELD_MM if len(plan.size) == 3 else _FIELD_MM[[1, 0]]
    return float(np.max(field / np.array(plan.size)))


def _read_anatomy(files: tuple[Path, ...], plan: _Plan) -> Anatomy:
    """Read the maps, averaged over blocks so that coarse pixels do not alias."""
    import nibabel

    block = max(1, round(_pixel_mm(plan)))
    volumes, affine = [], np.eye(4)
    for file in files:
        image = nibabel.as_closest_canonical(nibabel.load(file))
        affine = np.asarray(image.affine, dtype=np.float64)
        volume = np.asarray(image.dataobj, dtype=np.float32)
        shape = [size // block for size in volume.shape]
        cropped = volume[tuple(slice(0, size * block) for size in shape)]
        blocks = cropped.reshape(shape[0], block, shape[1], block, shape[2], block)
        volumes.append(blocks.mean(axis=(1, 3, 5)))
    voxel = float(affine[0, 0])
    origin = affine[:3, 3] + voxel * (block - 1) / 2
    return Anatomy(np.stack(volumes), origin, voxel * block)


def _draw(plan: _Plan, anatomy: Anatomy) -> tuple[NDArray[np.uint8], ...]:
    """Draw images and second contrasts ``(N, *size)`` of 0-255, and masks of class indices."""
    points = _points(plan)
    lower, upper = _CENTRE_MM - _FIELD_MM / 2, _CENTRE_MM + _FIELD_MM / 2
    images, seconds, masks = [], [], []
    for patient in range(plan.patients):
        generator = np.random.default_rng([plan.seed, patient])
        deformation = draw_deformation(generator, lower, upper, plan.displacement_mm)
        t1, grey, white = anatomy.sample(deformation.template_points(points))
        background = np.float32(255.0) - grey - white  # the maps are probabilities times 255
        images.append(_as_bytes(t1, plan))
        seconds.append(_as_bytes(_second_contrast(t1, grey, white, (plan.seed, patient)), plan))
        mask = np.argmax(np.stack([background, grey, white]), axis=0).astype(np.uint8)
        masks.append(mask.reshape(-1, *plan.size))
    return np.concatenate(images), np.concatenate(seconds), np.concatenate(masks)


def _second_contrast(
    t1: NDArray[np.float32],
    grey: NDArray[np.float32],
    white: NDArray[np.float32],
    seed: tuple[int, int],
) -> NDArray[np.float32]:
    """Return grey values of a T2-weighted image as the tissue maps, 0-255, would have it.

    What is in the head and neither grey nor white matter is fluid. The noise is the patient's own,
    and air has none.
    """
    inside = np.clip(4 * t1, 0, 255)
    fluid = np.clip(inside - grey - white, 0, 255)
    signal = (_FLUID * fluid + _GREY * grey + _WHITE * white) / np.float32(255)
    noise = np.random.default_rng([*seed, 2]).normal(0, _SECOND_NOISE, signal.shape)
    found: NDArray[np.float32] = np.where(signal > 1, signal + noise, 0).astype(np.float32)
    return found


def _as_bytes(values: NDArray[np.float32], plan: _Plan) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(-1, *plan.size)


def _points(plan: _Plan) -> Points:
    """Return the world positions of a patient's pixels, ``(3, slices * pixels)``.

    A slice is shown the radiologist's way: rows from front to back, columns from the patient's
    right to left. A volume has its axes to the right, to the front, and up.
    """
    step = _pixel_mm(plan)
    axes = [(np.arange(size) - (size - 1) / 2) * step for size in plan.size]
    if len(plan.size) == 3:
        x, y, z = np.meshgrid(*axes, indexing="ij")
        offsets = np.stack([x.ravel(), y.ravel(), z.ravel()])
        return np.asarray(offsets + _CENTRE_MM[:, None])
    heights = np.linspace(*_SLICES_MM, plan.slices) if plan.slices > 1 else np.array([20.0])
    z, rows, columns = np.meshgrid(heights, *axes, indexing="ij")
    return np.stack([_CENTRE_MM[0] - columns.ravel(), _CENTRE_MM[1] - rows.ravel(), z.ravel()])


ENTRY = DatasetEntry(
    title="Virtual brains from the MNI ICBM152 template (2009a, nonlinear, symmetric)",
    licence="MNI ICBM152: free use, modification and distribution with its copyright notice",
    citation=(
        "Fonov V, Evans AC, Botteron K, et al. Unbiased average age-appropriate atlases for "
        "pediatric studies. NeuroImage 2011; 54:313-327. "
        "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal "
        "Neurological Institute, McGill University. Shipped with nilearn."
    ),
    homepage="https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009",
    modality="MR (T1)",
    task="segmentation of grey and white matter, 2D slices or 3D volumes",
    tasks=("segmentation", "pretraining"),
    load=_load,
    options={
        "patients": DatasetOption(56, "how many virtual patients are drawn."),
        "slices": DatasetOption(6, "axial slices a patient, in 2D."),
        "displacement_mm": DatasetOption(8.0, "largest displacement of a control point, in mm."),
        "waves": DatasetOption(1, "waves in which the patients come, in turn."),
        "second_contrast": DatasetOption(
            False, "a synthetic channel t2 too, made from the tissue maps."
        ),
    },
)
