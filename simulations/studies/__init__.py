"""The built-in studies, by name."""

from pathlib import Path

from wardround.common.errors import InputError, known_names
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study

FOLDER = Path(__file__).parent


def built_in_names() -> tuple[str, ...]:
    """Return the names that stand for a study without a file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def find_study(text: str) -> Study:
    """Return the study of a file or of a built-in name.

    Raises:
        InputError: It is neither.
    """
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        return load_study(path)
    if text not in built_in_names():
        raise InputError(known_names("study", text, built_in_names()))
    return load_study(FOLDER / f"{text}.toml")
