"""A study for a notebook: by name, from a file, or written in Python."""

from collections.abc import Mapping
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wardround.common.errors import InputError, StudyError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.packages.references import reference_of
from wardround.common.files.packages.snapshot import hash_of
from wardround.common.files.usable_path import usable_path
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.lock import with_hashes
from wardround.common.study.registry import TASKS
from wardround.common.study.sections.fields import Section
from wardround.common.study.study import Study as AnyStudy
from wardround.common.study.variants import without_privacy
from wardround.simulations.notebook.study_keys import StudyChanges
from wardround.simulations.studies import built_in_names, find_study
from wardround.simulations.studies.recipes import DEFAULT, with_recipe

_NETWORKS = {"classification": "small-cnn", "detection": "retinanet", "segmentation": "unet"}
# Keys of several sections that mean something different in each: named with their section.
_SECTION_ONLY = frozenset({"options", *AnyStudy.model_fields})


def _homes() -> dict[str, tuple[str, ...]]:
    """Return for each flat key the sections that it is set in."""
    homes: dict[str, tuple[str, ...]] = {}
    for section, entry in AnyStudy.model_fields.items():
        model = entry.annotation
        # What a study plans from is a study of its own: its keys are named with their section.
        if section == "statistics" or not (isinstance(model, type) and issubclass(model, Section)):
            continue
        for key in model.model_fields:
            homes[key] = (*homes.get(key, ()), section)
    return {key: places for key, places in homes.items() if key not in _SECTION_ONLY}


HOMES = _homes()  # "seed" is that of the federation and of the simulation, as on the command line


class Study(AnyStudy):
    """A study, written in Python with the keys of the study file.

    ``Study("spots", classes=["no", "yes"], size=(64, 64), rounds=5)`` says what a study file says:
    each key by its own name, whatever section it stands in, or a section as a mapping
    (``training={"learning_rate": 0.01}``). ``options`` and ``data`` are keys of several sections
    and are given with theirs: ``federation={"options": {...}}``, ``simulation={"data": ...}``.

    What is not said has the study file's default. Beside these, the network is ``small-cnn`` (of
    a table ``mlp``, of a segmentation ``unet``), covariates may be names alone, and a budget
    ``epsilon`` (or a ``noise_multiplier``) without a mode is privacy for patients.

    It is frozen: :meth:`with_changes` returns another one.
    """

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        **keys: Unpack[StudyChanges],
    ) -> None:
        """Write and check a study.

        Args:
            name: What it is called.
            task: "classification", "detection" or "segmentation"; None is a classification.
            keys: Keys of the study file.

        Raises:
            StudyError: Says every problem in one paragraph, as of a study file.
        """
        if name in built_in_names() and not keys:
            msg = f"study {name!r} is built in: load it with load_study({name!r})."
            raise StudyError(msg)
        content = _content(name, task, keys)
        checked = parse_study(with_hashes(content), "the study")
        super().__init__(**{section: content[section] for section in checked.model_fields_set})

    def with_changes(
        self, changes: Mapping[str, object] | None = None, **keys: Unpack[StudyChanges]
    ) -> "Study":
        """Return a study with some keys replaced, checked again.

        Args:
            changes: By dotted key, e.g. ``{"training.learning_rate": 0.01}``.
            keys: By the key's own name, e.g. ``rounds=2``, or a section's mapping, whose keys are
                replaced one by one.

        Raises:
            StudyError: A key does not exist, or a value is refused.
        """
        given: object = changes
        if given is not None and not isinstance(given, Mapping):
            msg = (
                f"changes cannot be {type(given).__name__}: give a mapping such as "
                '{"training.learning_rate": 0.01}, or the keys by name.'
            )
            raise StudyError(msg)
        dotted = {key: _plain(value) for key, value in (changes or {}).items()}
        flat = _sections_of(keys)
        for section, table in flat.items():
            if section not in AnyStudy.model_fields or not isinstance(table, dict):
                dotted[section] = table  # is refused in words
                continue
            dotted |= {f"{section}.{key}": value for key, value in table.items()}
        return for_notebook(with_changes(self, {**self._hashes_for(dotted), **dotted}))

    def _hashes_for(self, dotted: Mapping[str, object]) -> dict[str, str]:
        """Return the hashes of packages that changed keys name first, as they are installed."""
        named = (reference_of(value) for value in dotted.values() if isinstance(value, str))
        missing = {one.package for one in named if one is not None} - set(self.packages)
        return {f"packages.{package}": hash_of(package) for package in sorted(missing)}

    def without_privacy(self) -> "Study":
        """Return the same study that promises nothing to patients."""
        return for_notebook(without_privacy(self))

    def save(self, path: "str | PathLike[str]") -> Path:
        """Write a study file, in the place of an older one, and return its path.

        Raises:
            InputError: It cannot be written.
        """
        file = usable_path(path, "a study file")
        try:
            replace_file(file, self.to_toml(), BY_UMASK)
        except OSError as error:
            msg = f"cannot write {file} ({error.strerror}): give a file in a folder that is there."
            raise InputError(msg) from None
        return file

    def __repr__(self) -> str:
        return f"<Study {self.name!r}: {', '.join(fact for _, fact in self._facts())}>"

    __str__ = __repr__

    def _facts(self) -> list[tuple[str, str]]:
        data, federation = self.data, self.federation
        shown = ", ".join(data.classes[:6]) + (", ..." if len(data.classes) > 6 else "")
        rounds = f"{federation.rounds} round{'' if federation.rounds == 1 else 's'}"
        facts = [
            ("task", f"{self.study.task} of {shown}"),
            ("network", self.model.network),
            ("strategy", f"{federation.strategy}, {rounds}"),
        ]
        if self.privacy.mode != "none":
            promised = self.privacy.epsilon
            of = "" if promised is None else f", epsilon {promised:g}"
            facts.append(("privacy", f"{self.privacy.mode}{of}"))
        return [*facts, ("metric", self.metric)]

    def _repr_html_(self) -> str:
        rows = [("study", self.name), *self._facts(), ("digest", self.digest[:16])]
        cells = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
        return f"<table>{cells}</table>"


def load_study(study: "AnyStudy | str | PathLike[str]", recipe: str = DEFAULT) -> Study:
    """Return a study.

    Args:
        study: A built-in study's name (``"heart-disease"``), the path of a study file, or a study,
            which is returned as it is.
        recipe: Of a built-in study: "fast", "default" or "best".

    Raises:
        StudyError: The file is no study, or says something that cannot be done.
        InputError: There is no such file and no built-in study of that name.
    """
    if isinstance(study, AnyStudy):
        return for_notebook(with_recipe(study, "the study", recipe))
    given: object = study
    if not isinstance(given, str | PathLike):
        msg = (
            f"a study cannot be read from {type(given).__name__}: give a built-in study's name, "
            "the path of a study file, or wardround.Study(...)."
        )
        raise InputError(msg)
    usable_path(given, "a study")
    name = fspath(given)
    return for_notebook(with_recipe(find_study(name), name, recipe))


def for_notebook(study: AnyStudy) -> Study:
    """Return a checked study as one that a notebook shows and changes; nothing is checked again."""
    if isinstance(study, Study):
        return study
    shown = Study.__new__(Study)
    shown.__setstate__(study.__getstate__())
    return shown


def _content(name: str | None, task: str | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    content = _sections_of(keys)
    head = content.setdefault("study", {})
    if isinstance(head, dict):
        head |= {key: value for key, value in (("name", name), ("task", task)) if value is not None}
        head.setdefault("task", "classification")
    for section in ("data", "model"):  # so that what they lack is said key by key
        content.setdefault(section, {})
    _fill_in(content)
    return content


def _fill_in(content: dict[str, Any]) -> None:
    head, data, model = (content[name] for name in ("study", "data", "model"))
    if not all(isinstance(table, dict) for table in (head, data, model)):
        return
    task = head["task"]
    if "network" not in model and task in TASKS:
        model["network"] = "mlp" if data.get("kind") == "table" else _NETWORKS[task]
    if isinstance(named := data.get("covariates"), list):
        data["covariates"] = [{"name": one} if isinstance(one, str) else one for one in named]
    privacy = content.get("privacy")
    if isinstance(privacy, dict) and {"epsilon", "noise_multiplier"} & privacy.keys():
        privacy.setdefault("mode", "patient")


def _sections_of(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat keys and sections as a study file has them; an unknown key stays where it is.

    Raises:
        StudyError: A key is one of several sections, or a section is no table.
    """
    sections = {key: _plain(keys[key]) for key in AnyStudy.model_fields if key in keys}
    if texts := [key for key, value in sections.items() if isinstance(value, str)]:
        key = texts[0]
        meant = "simulation={'data': ...} names a data set" if key == "data" else "name its keys"
        msg = f"{key} is a section of the study: write {key}={{...}}; {meant}."
        raise StudyError(msg)
    for key, value in keys.items():
        if key in AnyStudy.model_fields:
            continue
        if key == "options":
            msg = (
                "options is a key of [federation] and of [simulation]: write "
                "federation={'options': {...}} or simulation={'options': {...}}."
            )
            raise StudyError(msg)
        for home in HOMES.get(key, ()):
            table = sections.setdefault(home, {})
            if isinstance(table, dict):
                table[key] = _plain(value)
        if key not in HOMES:
            sections[key] = _plain(value)
    return sections


def _plain(value: object) -> Any:
    """Return a value as a TOML reader would give it: numbers, texts, lists and tables."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
