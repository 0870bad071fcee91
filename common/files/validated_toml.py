"""TOML files, checked against a model when read; what is wrong with one is said in a paragraph."""

import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wardround.common.errors import WardroundError, nearest

_Model = TypeVar("_Model", bound=BaseModel)
_Error: TypeAlias = type[WardroundError]
_Place: TypeAlias = tuple[str | int, ...]


def read_toml(
    path: Path, model: type[_Model], error: _Error, absent: str | _Model, cached: bool = False
) -> _Model:
    """Read a TOML file into a model.

    Args:
        error: Is raised with a sentence where the file cannot be used.
        absent: What holds where there is no such file: the sentence of the error, or the content.
        cached: Whether a file that has not changed is read once only, as for one that is looked
            at before every message. The model must be one that nobody can change.

    Raises:
        WardroundError: The error that was named: the file is missing, cannot be read, is not TOML,
            or says what the model refuses.
    """
    read: Callable[..., BaseModel] = _read_once if cached else _read
    try:
        seen = path.stat()
        content = read(path, model, error, (seen.st_mtime_ns, seen.st_size, seen.st_ino))
    except OSError as fault:
        if isinstance(absent, BaseModel) and isinstance(fault, FileNotFoundError):
            return absent
        _refuse(path, fault, error, absent if isinstance(absent, str) else "")
    return cast("_Model", content)


def load_toml(
    path: Path, error: _Error, absent: str, hint: str = "Mend that line."
) -> dict[str, Any]:
    """Read a TOML file that something else will check.

    Args:
        error: Is raised with a sentence where the file cannot be used.
        absent: That sentence where there is no such file.
        hint: What helps where the file is not TOML.

    Raises:
        WardroundError: The error that was named.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        _refuse(path, fault, error, absent)
    except (ValueError, RecursionError) as fault:  # also a number of 5,000 digits, a deep nesting
        msg = f"{path} is not a TOML file: {fault}. {hint}"
        raise error(msg) from None


def _read(
    path: Path, model: type[BaseModel], error: _Error, state: tuple[int, int, int]
) -> BaseModel:
    """Return what a file in a state says."""
    try:
        return model.model_validate(load_toml(path, error, f"{path} is gone: read it again."))
    except ValidationError as fault:
        raise error(explain_problems(fault, model, str(path))) from None


_read_once = lru_cache(maxsize=4096)(_read)  # an error is not kept


def _refuse(path: Path, fault: OSError, error: _Error, absent: str) -> NoReturn:
    if absent and isinstance(fault, FileNotFoundError | NotADirectoryError):
        raise error(absent) from None
    msg = f"cannot read {path} ({fault.strerror}): make it a readable file for this account."
    raise error(msg) from None


def explain_problems(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Return every problem of a study as sentences: fact, value, remedy.

    Args:
        error: What pydantic found.
        model: The model that refused, whose keys are suggested.
        origin: What the messages call the file.
    """
    problems = error.errors(include_url=False)
    places: dict[_Place, list[ErrorDetails]] = {}
    for problem in problems:
        places.setdefault(_place_of(problem), []).append(problem)
    sentences = [
        _sentence(place, there, model)
        for place, there in places.items()
        if not _follows(place, there, places)
    ]
    return f"{origin} is refused: " + " ".join(dict.fromkeys(sentences))


def _place_of(problem: ErrorDetails) -> _Place:
    """Return the keys of a problem, without the kinds that a value may have."""
    return tuple(part for part in problem["loc"] if not str(part).startswith(("literal", "tuple")))


def _follows(place: _Place, problems: list[ErrorDetails], places: Collection[_Place]) -> bool:
    """Whether a list is refused only since an entry of it is, which is said by itself."""
    deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
    return deeper and all(one["type"] in ("too_short", "literal_error") for one in problems)


def _sentence(place: _Place, problems: list[ErrorDetails], model: type[BaseModel]) -> str:
    problem, name = problems[0], _dotted(place)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(place, name, model)
    if problem["type"] == "missing":
        return f"{name} is missing: add it."
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    expected = dict.fromkeys(map(_expected, problems))
    if len(expected) > 1:  # of several kinds that a value may have it is none
        kinds = [re.sub(r"^(input should|it must) be |\.$", "", one) for one in expected]
        return f"{name} = {problem['input']!r} cannot be used: it must be {', or '.join(kinds)}."
    return f"{name} = {problem['input']!r} cannot be used: {next(iter(expected))}"


def _expected(problem: ErrorDetails) -> str:
    said = str(problem["msg"])[0].lower() + str(problem["msg"])[1:]
    if problem["type"] in ("tuple_type", "list_type"):
        return "it must be a list in brackets."
    if problem["type"] in ("dict_type", "model_type"):
        return "it must be a section."
    if problem["type"] == "too_short":
        return f"it must have at least {problem['ctx']['min_length']}."
    if problem["type"] == "literal_error":
        names = re.findall(r"'([^']*)'", str(problem.get("ctx", {}).get("expected", "")))
        close = nearest(str(problem["input"]), names)
        return f"{said}." + (f" Did you mean {close!r}?" if close else "")
    return f"{said}."


def _dotted(place: _Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _unknown_key(place: _Place, name: str, model: type[BaseModel]) -> str:
    known = sorted(_keys_at(place[:-1], model))
    close = nearest(str(place[-1]), known, cutoff=0.5)
    if len(place) == 1:  # the section may be missing
        close = close or nearest_key(str(place[0]), model)
    hint = f"did you mean {close!r}?" if close else f"known here: {', '.join(known)}."
    of = "a study" if model.__name__ == "Study" else "this file"
    return f"{name} is not a key of {of}: {hint}"


def nearest_key(name: str, model: type[BaseModel]) -> str | None:
    """Return the dotted key whose last part was meant by a name without its section.

    Args:
        name: E.g. "lr"; "training.learning_rate" is returned.
        model: Whose keys are looked at, those of its tables included.
    """
    by_name = {key.rpartition(".")[2]: key for key in reversed([*dotted_keys(model)])}
    close = nearest(name, by_name)
    return by_name[close] if close else None


def dotted_keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield each key of a file, e.g. "training.learning_rate", those of its tables included."""
    for name, entry in model.model_fields.items():
        inner = entry.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from dotted_keys(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _keys_at(place: tuple[str | int, ...], model: type[BaseModel]) -> set[str]:
    for part in place:
        if isinstance(part, int) or part not in model.model_fields:
            continue  # a place in a list, or a free name in a table
        annotation = model.model_fields[part].annotation
        candidates = (annotation, *get_args(annotation))
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return set()
        model = models[0]
    return set(model.model_fields)
