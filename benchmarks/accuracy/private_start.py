"""What a public start is worth to a private study: hippocampi, epsilon 8, few numbers left free.

Of the 260 cases of the Decathlon's hippocampus some are the public archive, and the others the
private patients of four hospitals. The archive is of another scanner: its grey values are bent and
shaded (``simulation.shift``). A network trained on it starts the private study, in which most of
its numbers are frozen. Each way is a run of ``wardround simulate``, and is not made again:

- ``public``: the archive's network as it is, before anything private is learnt;
- ``private``: the private study from it, all numbers free, or with ``FREE`` alone;
- ``scratch``: the private study from random weights;
- ``open``: from the public network, without privacy, for comparison.

    python -m benchmarks.accuracy.private_start --data-root DATA --out runs/private-start --seeds 0

What is chosen among the ways is chosen on validation patients.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.processes import machine

# Patterns of what stays as it came: every convolution but those of the last level.
FEW_FREE = ("model.0.*conv.weight", "model.1.*conv.weight", "*residual.weight")
PUBLIC_SHIFT = (
    "simulation.shift=[{kind='contrast',strength=1.0},{kind='bias-field',strength=1.0},"
    "{kind='noise',strength=1.0}]"
)
# Name of a way: the study's keys that it changes.
WAYS: dict[str, tuple[str, ...]] = {
    "scratch": (),
    "all-free": (),
    "few-free": (f"model.frozen={json.dumps(FEW_FREE)}",),
    "few-free-slow": (
        f"model.frozen={json.dumps(FEW_FREE)}",
        "federation.options.server_learning_rate=0.001",
    ),
    "open": ("privacy.mode='none'",),
}


@dataclass(frozen=True)
class Found:
    """What a run gave: Dice over all patients, by round on validation and of the kept model.

    Attributes:
        validation: Of all rounds, the first of the model that came before any training.
        test: By class; "" for the mean.
    """

    validation: tuple[float, ...]
    test: dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What all runs have in common."""

    data_root: Path
    out: Path
    public: int
    rounds: int

    def archive(self, seed: int) -> Found:
        """Train the public network, and put it where studies find it."""
        return self._simulate(
            f"public-{seed}",
            ("hippocampus", *self._folder(seed, public=True)),
            (
                *("--sites", "1", "--rounds", str(self.rounds), "--seed", str(seed)),
                *self._sets("model.features=[4,8,16]", "model.normalisation='group'"),
                *self._sets(PUBLIC_SHIFT),
            ),
        )

    def private(self, seed: int, way: str) -> Found:
        """Train the private study in one way."""
        weights = () if way == "scratch" else (f"model.weights_sha256='{self._weights(seed)}'",)
        return self._simulate(
            f"{way}-{seed}",
            ("hippocampus-private", *self._folder(seed, public=False)),
            ("--seed", str(seed), *self._sets(*weights, *WAYS[way])),
        )

    def _weights(self, seed: int) -> str:
        model = self.out / f"public-{seed}" / "models" / "federated"
        command = [sys.executable, "-m", "wardround.cli", "model", "pretrain", str(model)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"[0-9a-f]{64}", printed)
        if found is None:
            sys.exit(f"'wardround model pretrain' printed no hash: {printed}")
        return found[0]

    def _folder(self, seed: int, *, public: bool) -> tuple[str, ...]:
        """Write the manifest of the archive or of the hospitals; return what names it."""
        images = sorted((self.data_root / "msd_hippocampus" / "images").glob("*.nii.gz"))
        if not images:
            sys.exit(f"there is no msd_hippocampus/images below {self.data_root}.")
        drawn = sorted(images, key=lambda path: _order(seed, path.name))
        chosen = drawn[: self.public] if public else drawn[self.public :]
        file = self.out / f"{'public' if public else 'private'}-{seed}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(("patient", "image", "mask"))
            rows.writerows(
                (path.name.partition(".")[0], path, path.parents[1] / "labels" / path.name)
                for path in sorted(chosen)
            )
        options = f"simulation.options={{manifest='{file.resolve()}'}}"
        return self._sets("simulation.data='folder'", options)

    @staticmethod
    def _sets(*changes: str) -> tuple[str, ...]:
        return tuple(part for change in changes for part in ("--set", change))

    def _simulate(self, name: str, study: Sequence[str], options: Sequence[str]) -> Found:
        out = self.out / name
        if not (out / "report.html").exists():
            command = [
                *(sys.executable, "-m", "wardround.cli", "simulate", *study, *options),
                *("--out", str(out), "--no-compare", "--threads", "1", "--json"),
            ]
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                env=dict(os.environ, OMP_NUM_THREADS="1"),
            )
        return _read(out)


def _order(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _read(out: Path) -> Found:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "dice"]
    whole = [row for row in rows if row["model"] == "federated" and row["value"]]
    together = [row for row in whole if row["site"] == "all sites"] or whole
    measured = sorted(
        (int(row["round"]), float(row["value"]))
        for row in together
        if row["split"] == "validation" and not row["class_name"]
    )
    test = {row["class_name"]: float(row["value"]) for row in together if row["split"] == "test"}
    return Found(tuple(value for _, value in measured), test)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ways", default=",".join(WAYS), help=", ".join(WAYS))
    parser.add_argument("--public", type=int, default=60, help="cases of the public archive")
    parser.add_argument("--rounds", type=int, default=30, help="epochs of the public network")
    arguments = parser.parse_args()
    print(machine())
    bench = Bench(arguments.data_root, arguments.out, arguments.public, arguments.rounds)
    print("| seed | way | validation: before, best | test | test by class |\n|---|---|---|---|---|")
    for seed in (int(text) for text in arguments.seeds.split(",")):
        _print(seed, "public archive, own patients", bench.archive(seed))
        for way in arguments.ways.split(","):
            _print(seed, way, bench.private(seed, way))


def _print(seed: int, way: str, found: Found) -> None:
    classes = ", ".join(f"{name} {value:.3f}" for name, value in found.test.items() if name)
    print(
        f"| {seed} | {way} | {found.validation[0]:.3f}, {max(found.validation):.3f} "
        f"| {found.test.get('', float('nan')):.3f} | {classes} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
