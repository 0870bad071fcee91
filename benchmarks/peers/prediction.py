"""``wardround predict`` beside a bare loop that does the same, in turn, in one process.

1,000 X-rays of PneumoniaMNIST as PNG files, and 20 volumes of the Decathlon's hippocampus, with
drawn weights: the time of a network does not depend on them. A bare loop reads, prepares, predicts
and writes: for X-rays once with MONAI's transforms, and once with Pillow, NumPy and torch alone;
for volumes with MONAI's. All must say the same.

    python -m benchmarks.peers.prediction --data-root DATA [--repeats 3]
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import torch
from monai.data import MetaTensor, PILReader
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    LoadImage,
    NormalizeIntensity,
    Orientation,
    ScaleIntensityRangePercentiles,
    SpatialPad,
)
from torch.nn.functional import softmax

import wardround
from benchmarks.support.processes import machine
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.inference.seen import look_at
from wardround.client.clinic.inference.work import predict_all
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.study import Study
from wardround.simulations.studies import find_study

Loop = Callable[[torch.nn.Module, Study, list[Path], Path], None]
XRAYS, VOLUMES, ALLOWED = 1_000, 20, 1.1
OPTIONS = {"tta": False, "uncertainty": False, "outside": "refuse"}


def main(data_root: Path, repeats: int) -> None:
    """Print time and agreement of both, for pictures and for volumes."""
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(data_root / "pneumoniamnist", folder / "xrays")
        volumes = sorted((data_root / "msd_hippocampus" / "images").glob("*.nii.gz"))[:VOLUMES]
        loops = {"bare MONAI loop": monai_pictures, "bare torch loop": bare_pictures}
        compare("pneumonia-xray", pictures, loops, same_scores, folder, repeats)
        loops = {"bare MONAI loop": bare_volumes}
        compare("hippocampus", volumes, loops, same_masks, folder, repeats)


def write_pictures(source: Path, folder: Path) -> list[Path]:
    """Write the first X-rays as PNG files."""
    folder.mkdir()
    images = np.load(next(source.glob("*.npz")))["train_images"][:XRAYS]
    for number, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / f"{number:04d}.png")
    return sorted(folder.iterdir())


def write_model(study: Study, files: list[Path], folder: Path) -> Path:
    """Write a model folder with drawn weights that has seen these images."""
    weights = read_parameters(build_network(study, 0))
    seen = None
    for file in files:
        one = look_at([read_image(Location(file), study.data.dimensions)]).as_seen()
        seen = one if seen is None else seen.plus(one)
    contract = Contract(
        wardround=wardround.__version__,
        name=study.name,
        study=study_content(study),
        study_digest=study.digest,
        parameters=digest(weights),
        seen=seen,
    )
    texts = model_card(contract, study, Origin((), (), "none"), ()), licence_text("none")
    write_model_folder(folder / study.name, weights, contract, (), texts)
    return folder / study.name


def compare(
    name: str,
    files: list[Path],
    loops: dict[str, Loop],
    same: Callable[[Path, Path], str],
    folder: Path,
    repeats: int,
) -> None:
    """Run all in turn and print medians of wall and CPU seconds."""
    study = find_study(name)
    predictor = load_predictor(write_model(study, files, folder), "cpu")
    network = predictor.models[0].network()
    given = [str(file) for file in files]
    walls: dict[str, list[float]] = {key: [] for key in ("wardround predict", *loops)}
    cpus: dict[str, list[float]] = {key: [] for key in walls}
    for turn in range(repeats + 1):  # the first warms both up, and is not counted
        ours = folder / f"{name}-ours-{turn}"
        theirs = {key: folder / f"{name}-{key}-{turn}" for key in loops}
        work: dict[str, Callable[[], object]] = {
            key: partial(loop, network, study, files, theirs[key]) for key, loop in loops.items()
        }
        work["wardround predict"] = partial(predict_all, predictor, given, ours, OPTIONS, _nobody)
        for key in sorted(work, reverse=turn % 2 == 0):
            wall, cpu = time.perf_counter(), time.process_time()
            work[key]()
            if turn:
                walls[key].append(time.perf_counter() - wall)
                cpus[key].append(time.process_time() - cpu)
    print(f"\n{name}: {len(files)} files")
    middle = {key: statistics.median(values) for key, values in cpus.items()}
    for key in walls:
        print(f"  {key:18} {statistics.median(walls[key]):7.2f} s wall {middle[key]:7.2f} s CPU")
    for key in loops:
        ratio = middle["wardround predict"] / middle[key]
        verdict = "met" if ratio <= ALLOWED else "missed"
        said = f"CPU time over the {key}'s: {ratio:.2f} (target {ALLOWED}: {verdict})"
        print(f"  {said}; {same(ours, theirs[key])}")


def _nobody(done: int, total: int) -> None:
    """Show no progress."""


def monai_pictures(network: torch.nn.Module, study: Study, files: list[Path], out: Path) -> None:
    """Classify pictures in batches, read and prepared with MONAI's transforms."""
    prepare = Compose(
        [
            LoadImage(
                PILReader(reverse_indexing=False), image_only=True, ensure_channel_first=True
            ),
            ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True),
            NormalizeIntensity(),
        ]
    )
    classify(network, study, files, out, lambda file: prepare(file).as_tensor())


def bare_pictures(network: torch.nn.Module, study: Study, files: list[Path], out: Path) -> None:
    """Classify pictures in batches, read and prepared by hand."""
    classify(network, study, files, out, prepared_picture)


def classify(
    network: torch.nn.Module,
    study: Study,
    files: list[Path],
    out: Path,
    prepared: Callable[[Path], torch.Tensor],
) -> None:
    """Classify pictures in batches and write a table."""
    out.mkdir()
    with (out / "scores.csv").open("w", newline="") as stream, torch.inference_mode():
        writer = csv.writer(stream)
        size = study.training.batch_size
        for start in range(0, len(files), size):
            some = files[start : start + size]
            batch = torch.stack([prepared(file) for file in some])
            for file, row in zip(some, softmax(network(batch).double(), 1).tolist(), strict=True):
                writer.writerow([file, *row])


def prepared_picture(file: Path) -> torch.Tensor:
    """Return ``(1, 28, 28)``: the tails clipped, mean 0 and deviation 1."""
    with PIL.Image.open(file) as picture:
        image = np.asarray(picture, dtype=np.float32)
    low, high = np.percentile(image, (0.5, 99.5)).astype(np.float32)
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return torch.from_numpy(((image - image.mean()) / max(image.std(), 1e-6))[None])


def bare_volumes(network: torch.nn.Module, study: Study, files: list[Path], out: Path) -> None:
    """Segment volumes one by one and write each mask on the image's own voxels."""
    out.mkdir()
    size = study.data.size
    orient, pad, crop = Orientation("RAS"), SpatialPad(size), CenterSpatialCrop(size)
    with torch.inference_mode():
        for file in files:
            stored = nibabel.load(file)
            values = np.asarray(stored.dataobj, dtype=np.float32)[None]
            image = orient(MetaTensor(values, affine=torch.from_numpy(stored.affine)))
            shape = image.shape[1:]
            seen = crop(pad(torch.from_numpy(normalised(image.numpy()))))
            labels = network(torch.as_tensor(seen)[None].float())[0].argmax(0, keepdim=True)
            # MONAI's centre crop does not undo its padding where the two differ by an odd number.
            begin = [max(0, (want - have) // 2) for want, have in zip(size, shape, strict=True)]
            places = (slice(b, b + have) for b, have in zip(begin, shape, strict=True))
            fitted = SpatialPad(shape)(labels[(slice(None), *places)])
            image.set_array(torch.as_tensor(fitted).float())
            own = orient.inverse(image)[0].numpy().astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(own, stored.affine), out / file.name)


def normalised(image: np.ndarray) -> np.ndarray:
    """Return an MR image ``(1, x, y, z)``: tissue clipped at its tails and standardised."""
    tissue = image != 0
    values = image[tissue]
    values = np.clip(values, *np.percentile(values, (0.5, 99.5)))
    result = np.zeros_like(image)
    result[tissue] = (values - values.mean()) / max(values.std(), 1e-6)
    return result


def same_scores(ours: Path, theirs: Path) -> str:
    """Return how far the scores of the two tables are apart."""
    with (ours / "predictions.csv").open(newline="") as stream:
        found = {
            row["input"]: float(row["probability of pneumonia"]) for row in csv.DictReader(stream)
        }
    with (theirs / "scores.csv").open(newline="") as stream:
        wanted = {row[0]: float(row[2]) for row in csv.reader(stream)}
    if found.keys() != wanted.keys():
        return f"{len(found)} scores beside {len(wanted)}"
    apart = max(abs(found[key] - wanted[key]) for key in wanted)
    return f"scores at most {apart:.1e} apart"


def same_masks(ours: Path, theirs: Path) -> str:
    """Return how many voxels of the masks differ."""
    different = total = 0
    for path in sorted(theirs.iterdir()):
        wanted = np.asarray(nibabel.load(path).dataobj)
        found = np.asarray(nibabel.load(ours / "masks" / path.name).dataobj)
        different += int((wanted != found).sum())
        total += wanted.size
    return f"{different} of {total} voxels differ"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.data_root, arguments.repeats)
