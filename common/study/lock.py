"""Hashes of the packages that a study names, written into its file: ``[packages]``."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from wardround.common.errors import StudyError, known_names
from wardround.common.files.packages.references import PACKAGE_FORM, reference_of
from wardround.common.files.packages.snapshot import (
    hash_of,
    install_words,
    is_installed,
    registered,
)
from wardround.common.files.validated_toml import explain_problems
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.common.study.versions import KEY, brought_up

# Which kind a key of a study names.
KINDS: Mapping[str, str] = {
    "model.network": "networks",
    "training.loss": "losses",
    "data.augmentation": "transforms",
    "federation.strategy": "strategies",
    "federation.aggregation": "strategies",
    "evaluation.metrics": "metrics",
}
_TABLE = re.compile(r"^[ \t]*\[[ \t]*packages[ \t]*\][^\n]*\n(?:(?![ \t]*\[)[^\n]*(?:\n|$))*", re.M)


def locked(text: str, origin: str, others: Iterable[str] = ()) -> tuple[str, Study]:
    """Return a study file with the hashes of the packages as they are installed here.

    Args:
        text: The file as it is; all but ``[packages]`` stays as it stands.
        origin: How messages call it.
        others: Packages that those of the study need, beside Wardround's own.

    Returns:
        The new text, and the study that it holds.

    Raises:
        StudyError: It is no study, or a package cannot be hashed.
    """
    content = _read(text, origin)
    named = packages_of(content, origin)
    wanted = sorted({*named, *others, *_listed(content)})
    for package in wanted:
        if re.fullmatch(PACKAGE_FORM, package) is None:
            msg = f"{package!r} is no package's name: write small letters, digits and hyphens."
            raise StudyError(msg)
    hashes = {package: hash_of(package) for package in wanted}
    kept = _TABLE.sub("", text).rstrip("\n")
    lines = "".join(f'{package} = "{found}"\n' for package, found in hashes.items())
    new = f"{kept}\n\n[packages]\n{lines}" if hashes else f"{kept}\n"
    rest = {key: value for key, value in content.items() if key != "packages"}
    found = _read(new, origin)
    if {key: value for key, value in found.items() if key != "packages"} != rest:
        msg = f"[packages] of {origin} cannot be rewritten: take it out by hand, then try again."
        raise StudyError(msg)
    study = parse_study(found, origin, planned=False)
    for problem in unknown_names(study):
        raise StudyError(problem)
    return new, study


def with_hashes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's content with the hash of each package that it names and has none of.

    For studies that are made in Python, on the machine of a researcher.

    Raises:
        PackageError: A package cannot be hashed.
    """
    said = _listed(content)
    try:
        missing = packages_of(content, "the study") - said.keys()
    except StudyError:
        return dict(content)  # whoever checks it says what is wrong, all at once
    if not missing:
        return dict(content)
    return {**content, "packages": {**said, **{name: hash_of(name) for name in sorted(missing)}}}


def packages_of(content: Mapping[str, Any], origin: str) -> set[str]:
    """Return the packages that a study names, its data set's aside.

    Raises:
        StudyError: It is no study.
    """
    try:
        study = Study.model_validate(
            {k: v for k, v in content.items() if k not in (KEY, "packages")}
        )
    except ValidationError as error:
        raise StudyError(explain_problems(error, Study, origin)) from None
    references = (reference_of(text) for text in study.registered.values())
    return {named.package for named in references if named is not None}


def unknown_names(study: Study) -> Iterator[str]:
    """Yield a sentence for each name that an installed package does not register."""
    for key, text in study.registered.items():
        named, kind = reference_of(text), KINDS[key.partition(" ")[0]]
        if named is None or not is_installed(named.package):
            continue
        known = registered(kind)
        if text not in known:
            yield f"{key}: {known_names(f'name among {kind} of packages', text, known)}"


def package_notes(study: Study) -> Iterator[str]:
    """Yield what is to be known of a study's packages on this machine.

    Raises:
        PackageError: One is installed with another hash.
        StudyError: One does not register what the study names.
    """
    from wardround.common.files.packages.importing import require_installed

    for package, wanted in study.packages.items():
        if is_installed(package):
            require_installed({package: wanted})
        else:
            yield (
                f"the package {package} is not installed here, so that the study cannot run here: "
                f"{install_words(package)}."
            )
    for problem in unknown_names(study):
        raise StudyError(problem)


def _listed(content: Mapping[str, Any]) -> dict[str, Any]:
    said = content.get("packages")
    return dict(said) if isinstance(said, dict) else {}


def _read(text: str, origin: str) -> dict[str, Any]:
    try:
        return brought_up(tomllib.loads(text), origin)
    except tomllib.TOMLDecodeError as error:
        msg = f"{origin} is not TOML ({error}): mend that line."
        raise StudyError(msg) from None
