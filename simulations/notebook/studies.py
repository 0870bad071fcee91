"""A study for a notebook: by name, from a file, or as it is."""

from os import PathLike, fspath

from wardround.common.study.study import Study
from wardround.simulations.studies import find_study


def load_study(study: "Study | str | PathLike[str]") -> Study:
    """Return a study.

    Args:
        study: A built-in study's name (``"heart-disease"``), the path of a study file, or a study,
            which is returned as it is.

    Raises:
        StudyError: The file is no study, or says something that cannot be done.
        InputError: There is no such file and no built-in study of that name.
    """
    return study if isinstance(study, Study) else find_study(fspath(study))
