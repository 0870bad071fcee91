"""A small table that comes in waves, for tests that run a sequence of studies in seconds."""

import csv
import random
from pathlib import Path

from tests.support.stage import table_study
from tests.support.studies.tiny_runs import SITES

from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study

PATIENTS = 144
WAVES = 3


def write_wave_study(folder: Path, waves: int = WAVES, **changes: object) -> Study:
    """Write ``study.toml`` and a manifest of patients of two sites; return the study of wave 1.

    What tells the classes apart is another value in each wave.

    Args:
        changes: Keys of the study with ``__`` for the dot, e.g. ``federation__strategy``.
    """
    drawn, manifest = random.Random(0), folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "wave", "a", "b"])
        for number in range(PATIENTS):
            label, split = number % 2, ("train", "train", "validation", "test")[number // 2 % 4]
            wave = 1 + number // 16 % waves
            told, other = drawn.gauss(2 * label, 1), drawn.gauss(0, 1)
            values = [told, other] if wave % 2 else [other, told]
            row = [f"p{number}", label, split, SITES[number // 8 % 2], wave, *values]
            writer.writerow(row)
    study = with_changes(
        table_study("tiny waves", manifest, rounds=2),
        {
            "simulation.compare": False,
            "continual.wave": 1,
            "evaluation.keep": "last",
            **{k.replace("__", "."): v for k, v in changes.items()},
        },
    )
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return study


def write_class_study(folder: Path) -> Study:
    """Write a study of two classes, whose manifest has a third one in its second wave."""
    drawn, manifest = random.Random(0), folder / "manifest.csv"
    centres = {"no": (0, 0), "yes": (4, 0), "maybe": (0, 4)}
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "wave", "a", "b"])
        for number in range(192):
            wave, turn = 1 + number // 96, number % 96
            names = ("no", "yes") if wave == 1 else tuple(centres)
            label = names[turn % len(names)]
            split = ("train", "train", "validation", "test")[turn // 6 % 4]
            values = [drawn.gauss(centre, 1) for centre in centres[label]]
            site = SITES[turn // 24 % 2]
            writer.writerow([f"p{number}", label, split, site, wave, *values])
    study = with_changes(
        table_study("a class later", manifest, steps=20, rounds=3),
        {"simulation.compare": False, "continual.wave": 1, "evaluation.keep": "last"},
    )
    (folder / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    return study
