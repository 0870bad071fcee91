"""The built-in studies, with changes."""

from pathlib import Path

from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study

STUDIES = Path(__file__).parents[3] / "simulations" / "studies"


def built_in(name: str, **changes: object) -> Study:
    study = load_study(STUDIES / f"{name}.toml")
    return with_changes(study, {key.replace("__", "."): value for key, value in changes.items()})
