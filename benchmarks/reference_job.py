"""The reference job beside a bare torch loop that does the same work, in turn, in one run.

4 sites x 1,000 images of 28 x 28, two convolutions (16, 32) and a linear layer, SGD 0.01 with
momentum 0.9, batch 32, one local epoch, 5 rounds, every site evaluated every round, one thread.

    python -m benchmarks.reference_job [--repeats 3] [--many-sites [64]]
    python -m benchmarks.reference_job --images FOLDER

With ``--images``, FOLDER/selection.csv and FOLDER/images of HAM10000 (a row a JPEG; columns
lesion_id, image_id, dx, dataset) take the place of the generated arrays: four natural sites, one
pass, beside a plain loop over the same files that ends at the same evaluations.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path

from safetensors.torch import save_file

from benchmarks.support.processes import Timed, machine, run_timed
from benchmarks.support.reference_data import write_sites, write_study
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import load_study

ROUNDS = 5
HERE = Path(__file__).parent
_COPIES = 5
_PICTURES = """
[study]
name = "pictures"
task = "classification"
[data]
colour = true
classes = {classes}
size = [64, 64]
intensity = "dermoscopy"
[model]
network = "small-cnn"
normalisation = "group"
[training]
optimiser = "adam"
learning_rate = 1e-3
batch_size = 32
local_epochs = 1
[federation]
rounds = 1
[evaluation]
metric = "accuracy"
[simulation]
data = "folder"
split = "natural"
[simulation.options]
manifest = "{manifest}"
"""


def main() -> None:
    """Print the comparison as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--many-sites", type=int, nargs="?", const=64, help="64 x 62 beside 4 x 1,000; or 200"
    )
    parser.add_argument("--images", type=Path, help="folder of HAM10000's JPEGs and selection.csv")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.images is not None:
            _compare_on_pictures(folder, arguments.images.resolve(), arguments.repeats)
        elif arguments.many_sites is not None:
            _compare_site_counts(folder, arguments.many_sites, arguments.repeats)
        else:
            _compare_with_floor(folder, arguments.repeats)


def _compare_with_floor(folder: Path, repeats: int) -> None:
    study, initial = prepare(folder, 4, 1000)
    floor, ours, ours_rounds, floor_rounds, accuracies = [], [], [], [], []
    for number in range(repeats):
        bare = run_timed(
            [
                sys.executable,
                str(HERE / "peers" / "bare_loop.py"),
                str(folder / "manifest.csv"),
                str(ROUNDS),
                str(initial),
            ],
            {"OMP_NUM_THREADS": "1"},
        )
        out = folder / f"run-{number}"
        mine = run_timed(_command(study, out))
        result = json.loads(bare.output)
        floor.append(bare)
        ours.append(mine)
        floor_rounds += result["rounds"][1:]
        ours_rounds += _round_seconds(out)
        accuracies.append((result["accuracy"], _accuracy(mine)))
    _print_row("seconds a round", floor_rounds, ours_rounds)
    _print_processes(floor, ours)
    fixed = [r.wall_seconds - ROUNDS * statistics.median(ours_rounds) for r in ours]
    bare_fixed = [r.wall_seconds - ROUNDS * statistics.median(floor_rounds) for r in floor]
    _print_row("fixed cost, wall s", bare_fixed, fixed)
    print("final accuracy (bare, wardround):", accuracies)


def _compare_site_counts(folder: Path, sites: int, repeats: int) -> None:
    each = 4_000 // sites
    few, _ = prepare(folder / "few", 4, 1000)
    many, _ = prepare(folder / "many", sites, each)
    first, second = list[Timed](), list[Timed]()
    for number in range(repeats):
        first.append(run_timed(_command(few, folder / f"few-{number}")))
        second.append(run_timed(_command(many, folder / f"many-{number}")))
    print(f"columns: 4 x 1,000, then {sites} x {each}")
    _print_processes(first, second)
    for name in ("few", "many"):
        run = folder / f"{name}-0"
        print(f"{name}: report {(run / 'report.html').stat().st_size / 1e6:.2f} MB")
        print(f"{name}: seconds {json.loads((run / 'run.json').read_text())['seconds']}")


def _compare_on_pictures(folder: Path, images: Path, repeats: int) -> None:
    manifest, classes = _write_manifest(folder, images)
    study = folder / "study.toml"
    study.write_text(_PICTURES.format(manifest=manifest, classes=json.dumps(classes)))
    plain = [sys.executable, "-m", "benchmarks.peers.plain_images", str(manifest), "1", "64"]
    floor, ours = [], []
    for number in range(repeats):
        floor.append(run_timed(plain, {"OMP_NUM_THREADS": "1"}))
        ours.append(run_timed(_command(study, folder / f"pictures-{number}")))
    _print_processes(floor, ours)


def _write_manifest(folder: Path, images: Path) -> tuple[Path, list[str]]:
    """Write five examinations a JPEG, to be as many as the whole set; return the classes too."""
    with (images / "selection.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "label", "site", "split"])
        for line in lines:
            place = zlib.crc32(line["lesion_id"].encode()) % 100
            split = "train" if place < 70 else "validation" if place < 85 else "test"
            path = images / "images" / f"{line['image_id']}.jpg"
            for copy in range(_COPIES):
                patient = f"{line['lesion_id']}-{copy}"
                writer.writerow([patient, path, line["dx"], line["dataset"], split])
    return manifest, sorted({line["dx"] for line in lines})


def _print_processes(first: list[Timed], second: list[Timed]) -> None:
    _print_row("whole process, wall s", *([r.wall_seconds for r in rs] for rs in (first, second)))
    _print_row("whole process, CPU s", *([r.cpu_seconds for r in rs] for rs in (first, second)))
    _print_row("peak memory, MB", *([r.memory_mb for r in rs] for rs in (first, second)))


def prepare(folder: Path, sites: int, images_each: int) -> tuple[Path, Path]:
    """Write the data, the study and the initial weights; return the latter two."""
    manifest = write_sites(folder, sites, images_each)
    path = folder / "study.toml"
    write_study(path, manifest, ROUNDS)
    study = load_study(path)
    weights = build_network(study, study.federation.seed).state_dict()
    initial = folder / "initial.safetensors"
    save_file({f"{n:02d}": tensor for n, tensor in enumerate(weights.values())}, initial)
    return path, initial


def _command(study: Path, out: Path) -> list[str]:
    flags = ["--no-compare", "--engine", "in-process", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "wardround.cli", "simulate", str(study), "--out", str(out)]
    return [*command, *flags]


def _round_seconds(out: Path) -> list[float]:
    """Return the wall time between commits: rounds 2 to 5, everything included."""
    lines = (out / "checkpoints" / "federated" / "history.jsonl").read_text().splitlines()
    stamps = [json.loads(line)["written_at"] for line in lines[:ROUNDS]]
    return [later - earlier for earlier, later in pairwise(stamps)]


def _accuracy(run: Timed) -> float:
    return float(json.loads(run.output)["all_sites"]["federated"])


def _print_row(title: str, floor: list[float], ours: list[float]) -> None:
    a, b = statistics.median(floor), statistics.median(ours)
    spread = f"{min(ours):.2f}-{max(ours):.2f}"
    print(f"{title:<24} {a:8.3f} {b:8.3f}  ratio {b / a:5.2f}   (ours {spread})")


if __name__ == "__main__":
    main()
