"""Hospitals that disagree over two numbers a patient, and a study over them."""

import random
from pathlib import Path
from typing import Any

from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.sites.site_folders import write_open_policy

ALONE = Machine(engine="in-process", threads=1)


def study_for(strategy: str, **changes: Any) -> Study:
    return with_changes(
        parse_study(
            {
                "study": {"name": "runs", "task": "classification"},
                "data": {
                    "kind": "table",
                    "classes": ["a", "b"],
                    "covariates": [{"name": "x"}, {"name": "y"}],
                },
                "model": {"network": "mlp", "features": [6], "normalisation": "batch"},
                "training": {
                    "optimiser": "sgd",
                    "learning_rate": 0.1,
                    "batch_size": 8,
                    "local_steps": 3,
                },
                "federation": {"strategy": strategy, "rounds": 4},
                "evaluation": {"metric": "loss"},
            }
        ),
        changes,
    )


def write_sites(root: Path, count: int = 3) -> list[Path]:
    """Write hospitals that draw the line between the classes each in another direction."""
    folders = []
    for number in range(count):
        folder = root / f"site-{number}"
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "site-{number}"\n', encoding="utf-8")
        write_open_policy(folder)
        drawn = random.Random(number)
        rows = ["patient,label,x,y"]
        for patient in range(40):
            x, y = drawn.gauss(0, 1), drawn.gauss(0, 1)
            label = "b" if x + (number - 1) * 2 * y > 0 else "a"
            rows.append(f"p{patient},{label},{x:.4f},{y:.4f}")
        (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
        folders.append(folder)
    return folders


class StoppedError(Exception):
    """The run was cut here."""
