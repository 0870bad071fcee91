"""How soon the monitoring of a site sees a change, and how often it is wrong without one.

Trains a small model on a part of PneumoniaMNIST (``wardround simulate``), draws references and
periods from images that it has not seen, and looks at them as ``wardround site monitor`` does.

    python -m benchmarks.accuracy.drift --data-root DATA
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.processes import machine
from wardround.client.clinic.inference.inputs import find_inputs
from wardround.client.clinic.inference.predictor import load_predictor
from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.gathering import gather
from wardround.client.clinic.monitoring.monitor import Rules, look_back
from wardround.client.clinic.monitoring.renewal import Entry

TRAINED_ON = 1_200
REFERENCE = 200
WEEKS = 52
Draw = np.random.Generator


@dataclass(frozen=True)
class Pool:
    """Cases of images that the model has not seen, by what was done to them."""

    cases: dict[str, list[Case]]
    labels: NDArray[np.int64]

    def some(self, places: NDArray[np.int64], change: str = "none") -> list[Case]:
        """Return the cases at some places."""
        return [self.cases[change][place] for place in places]

    def drawn(self, counts: tuple[int, int], left: NDArray[np.int64], draw: Draw) -> list[Case]:
        """Draw so many of each class from the places that are left."""
        of = [left[self.labels[left] == label] for label in range(len(counts))]
        chosen = [draw.choice(some, n, replace=False) for some, n in zip(of, counts, strict=True)]
        return self.some(np.concatenate(chosen))


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--weekly", default="25,100", help="Images a week without drift.")
    parser.add_argument("--false-alarms", type=float, default=0.25)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        pool = make_pool(arguments.data_root, Path(folder), arguments.rounds)
    rules = Rules(arguments.false_alarms / WEEKS, "drift")
    seeds = range(arguments.repeats)
    with ProcessPoolExecutor(arguments.workers) as workers:
        print("change | images | notice | alarm")
        for name, count in CHANGES:
            found = list(workers.map(partial(detect, pool, rules, name, count), seeds, chunksize=8))
            notices, alarms = (np.mean([one in wanted for one in found]) for wanted in _LEVELS)
            print(f"{name} | {count} | {100 * notices:.1f} % | {100 * alarms:.1f} %", flush=True)
        for weekly in map(int, arguments.weekly.split(",")):
            years = list(workers.map(partial(quiet_year, pool, rules, weekly), seeds, chunksize=4))
            few = np.mean([count <= 1 for count in years])
            none = np.mean([count == 0 for count in years])
            print(
                f"{WEEKS} weeks of {weekly} images without drift: <= 1 alarm in {100 * few:.1f} %, "
                f"none in {100 * none:.1f} %, at most {max(years)}, {np.mean(years):.2f} a year",
                flush=True,
            )


CHANGES = (
    *(("none", n) for n in (25, 50, 100)),
    *(("brightness x 0.9", 25), ("noise 0.02", 25), ("gamma 1.2", 25), ("gamma 1.2", 50)),
    *(("prevalence 0.74 to 0.50", n) for n in (25, 50, 100)),
)
_LEVELS = (("notice", "alarm"), ("alarm",))


def make_pool(data_root: Path, folder: Path, rounds: int) -> Pool:
    """Train a model on a part of the data, and have it see the rest, changed and unchanged."""
    found = sorted(data_root.rglob("pneumoniamnist*.npz"))
    if not found:
        sys.exit(f"{data_root} holds no pneumoniamnist*.npz")
    with np.load(found[-1]) as data:
        held = {name: data[name] for name in data.files}
    images, labels = held["train_images"], held["train_labels"]
    few = {**held, "train_images": images[:TRAINED_ON], "train_labels": labels[:TRAINED_ON]}
    (folder / "pneumoniamnist").mkdir()
    np.savez(folder / "pneumoniamnist" / "pneumoniamnist.npz", **few)
    command = [
        *(sys.executable, "-m", "wardround.cli", "simulate", "pneumonia-xray"),
        *("--data-root", str(folder), "--out", str(folder / "run"), "--no-compare"),
        *("--set", f"federation.rounds={rounds}", "--engine", "in-process", "--threads", "1"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    predictor = load_predictor(folder / "run" / "models" / "federated", "cpu")
    cases = {}
    for name, changed in _changed(images[TRAINED_ON:]):
        path = folder / f"{len(cases)}.npz"
        np.savez(path, images=changed)
        inputs = find_inputs([f"{path}#images"], predictor.study)
        gathered = gather(predictor, inputs, _unnamed, lambda done, total: None)
        cases[name] = list(gathered.cases)
    return Pool(cases, labels[TRAINED_ON:].ravel().astype(np.int64))


def _unnamed(text: str) -> str:
    return text


def _changed(images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    values = images / 255.0
    noise = np.random.default_rng(0).normal(0, 0.02, images.shape)
    yield "none", images
    for name, changed in (
        ("brightness x 0.9", values * 0.9),
        ("noise 0.02", values + noise),
        ("gamma 1.2", values**1.2),
    ):
        yield name, np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)


def _parted(pool: Pool, draw: Draw) -> tuple[list[Case], NDArray[np.int64]]:
    order = draw.permutation(len(pool.labels))
    return pool.some(order[:REFERENCE]), order[REFERENCE:]


def detect(pool: Pool, rules: Rules, change: str, count: int, seed: int) -> str:
    """Return the verdict on one period after a change."""
    draw = np.random.default_rng((seed, count))
    reference, left = _parted(pool, draw)
    if change.startswith("prevalence"):
        own = pool.drawn((count - count // 2, count // 2), left, draw)
    else:
        own = pool.some(left[:count], change)
    entry = look_back(reference, ("1", {"1": own}), (), rules)
    return str(entry["verdict"])


def quiet_year(pool: Pool, rules: Rules, weekly: int, seed: int) -> int:
    """Return how many weeks without any change raised an alarm; each is closed at once."""
    draw = np.random.default_rng((seed, weekly, 52))
    reference, left = _parted(pool, draw)
    if WEEKS * weekly > len(left):  # a year of so many is drawn from the rest again and again
        left = draw.choice(left, WEEKS * weekly)
    weeks = {f"{week:02d}": pool.some(left[week * weekly :][:weekly]) for week in range(WEEKS)}
    entries: list[Entry] = []
    alarms = 0
    for week in weeks:
        entry: dict[str, Any] = look_back(reference, (week, weeks), entries, rules)
        entries.append(entry)
        if entry["verdict"] == "alarm":
            alarms += 1
            entries.append({"kind": "closed"})
    return alarms


if __name__ == "__main__":
    main()
