"""A study of small made-up pictures whose rounds take about a second, and what its rounds took."""

import csv
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HOSPITALS, PICTURES, EDGE = 4, 320, 32
STUDY = """
[study]
name = "watched"
task = "classification"

[data]
classes = ["dark", "bright"]
size = [32, 32]

[model]
network = "small-cnn"
normalisation = "group"

[training]
batch_size = 16
local_steps = {steps}

[federation]
rounds = {rounds}

[simulation]
data = "folder"
split = "iid"
sites = 4
compare = false

[simulation.options]
manifest = "{manifest}"
"""


def write_study(folder: Path, rounds: int, steps: int) -> Path:
    """Write pictures, their manifest and a study; return the study's file."""
    drawn, manifest = np.random.default_rng(0), folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "label"])
        for number in range(PICTURES):
            pixels = drawn.integers(0, 120, (EDGE, EDGE)).astype(np.uint8)
            pixels[8:24, 8:24] += np.uint8(90 * (number % 2))
            path = folder / f"{number:03}.png"
            Image.fromarray(pixels).save(path)
            writer.writerow([f"P{number:03}", path.name, ("dark", "bright")[number % 2]])
    study = folder / "study.toml"
    text = STUDY.format(manifest=manifest, rounds=rounds, steps=steps)
    study.write_text(text, encoding="utf-8")
    return study


def round_seconds(run: Path) -> list[float]:
    """Return how long each round of a run took, as far as it has come."""
    history = run / "checkpoints" / "federated" / "history.jsonl"
    if not history.exists():
        return []
    text = history.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [float(json.loads(line)["seconds"]) for line in whole.splitlines()]


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Return how many times the second of each pair is the first, with a 95 % interval.

    The interval is Student's t of the logarithms; with fewer than two pairs there is none (null).
    """
    from scipy.stats import t

    logs = [math.log(after / before) for before, after in pairs]
    middle = statistics.fmean(logs)
    ends: dict[str, float | None] = {"low": None, "high": None}
    if len(logs) > 1:
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        half = float(t.ppf(0.975, len(logs) - 1)) * error
        ends = {"low": math.exp(middle - half), "high": math.exp(middle + half)}
    return {"ratio": math.exp(middle), **ends, "pairs": float(len(logs))}
