"""The built-in studies, with changes."""

from pathlib import Path

from wardround.common.study.study import Study, load_study

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"


def built_in(name: str, **changes: object) -> Study:
    study = load_study(STUDIES / f"{name}.toml")
    return study.with_changes({key.replace("__", "."): value for key, value in changes.items()})
