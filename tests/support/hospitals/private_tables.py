"""A study with privacy of patients over the two numbers a patient that ``tests.faults`` writes."""

from pathlib import Path

from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

DELTA = 1e-3


def private_study(manifest: Path, name: str, rounds: int, minimum_sites: int = 2) -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": n, "mean": 0.5, "scale": 1.0} for n in ("a", "b")],
            },
            "model": {"network": "mlp", "features": []},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": 2},
            "federation": {"rounds": rounds, "minimum_sites": minimum_sites},
            "privacy": {
                "mode": "patient",
                "noise_multiplier": 1.5,
                "delta": DELTA,
                "sampling_rate": 0.5,
                "expected_patients": 12,
            },
            "evaluation": {"keep": "last"},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "options": {"manifest": str(manifest)},
            },
        }
    )
