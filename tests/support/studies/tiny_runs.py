"""A study of a small table, for tests that run it whole in a second or two."""

import csv
import random
from pathlib import Path

from tests.support.stage import table_study

from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study

SITES = ("north", "south")
PATIENTS = 120


def write_tiny_study(folder: Path, **changes: object) -> Study:
    """Write ``study.toml`` and a manifest of patients of two sites; return the study.

    Args:
        changes: Keys of the study with ``__`` for the dot, e.g. ``federation__strategy``.
    """
    drawn, manifest = random.Random(0), folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "a", "b"])
        for number in range(PATIENTS):
            label, split = number % 2, ("train", "train", "validation", "test")[number // 2 % 4]
            values = [drawn.gauss(label, 1), drawn.gauss(0, 1)]
            writer.writerow([f"p{number}", label, split, SITES[number // 8 % 2], *values])
    study = with_changes(
        table_study("tiny table", manifest, rounds=2),
        {"simulation.compare": True, **{k.replace("__", "."): v for k, v in changes.items()}},
    )
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return study
