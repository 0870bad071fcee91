"""The built-in studies, by name."""

from pathlib import Path

from wardround.common.errors import InputError, known_names
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study

FOLDER = Path(__file__).parent
_PATHS = ("manifest", "folder", "file")  # keys of [simulation.options] that say where data lies


def built_in_names() -> tuple[str, ...]:
    """Return the names that stand for a study without a file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def find_study(text: str) -> Study:
    """Return the study of a file or of a built-in name.

    Where a relative path of ``[simulation.options]`` leads to something beside the study file, that
    is what it means, wherever the command is given and whatever another folder holds by that name.

    Raises:
        InputError: It is neither.
    """
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        return _with_data_beside(load_study(path), path.resolve().parent)
    if text not in built_in_names():
        raise InputError(known_names("study", text, built_in_names()))
    return load_study(FOLDER / f"{text}.toml")


def _with_data_beside(study: Study, folder: Path) -> Study:
    found = {
        f"simulation.options.{key}": str((folder / text).resolve())
        for key in _PATHS
        if isinstance(text := study.simulation.options.get(key), str)
        and text
        and (folder / text).exists()
    }
    parent = study.simulation.parent
    if parent and not Path(parent).is_absolute():
        found["simulation.parent"] = str((folder / parent).resolve())
    return with_changes(study, found) if found else study
