"""What a sweep varies: ``training.learning_rate=1e-4..1e-1:log``, ``training.batch_size=8,16``."""

import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel

from wardround.common.errors import InputError, StudyError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study

# What is measured, and on whom, must be the same for all trials or they cannot be compared.
_FIXED = {
    "study": "it only describes the study",
    "simulation": "it decides who the patients are",
    "evaluation": "it decides what is measured; the metric is chosen with --metric",
    "federation.seed": "a seed is chance, not a choice; repeat the sweep with another --seed",
    "data.classes": "it decides what is measured",
}

# What people write for a key; a report says which key it was read as.
ALIASES = {
    "training.lr": "training.learning_rate",
    "training.bs": "training.batch_size",
    "training.wd": "training.weight_decay",
    "training.epochs": "training.local_epochs",
    "training.steps": "training.local_steps",
    "training.optimizer": "training.optimiser",
    "federation.server_lr": "federation.options.server_learning_rate",
}
_SHOWN = 3  # known keys that are named beside an unknown one


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, both included.

    Attributes:
        is_whole: Whether only whole numbers are meant.
        is_log: Whether each decade is as likely as another.
    """

    key: str
    low: float
    high: float
    is_whole: bool
    is_log: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, each kept as a line of JSON so that lists are possible too."""

    key: str
    values: tuple[str, ...]


Parameter: TypeAlias = Range | Choice


def parse_parameters(texts: Sequence[str], study: Study) -> tuple[Parameter, ...]:
    """Return what a sweep varies, checked against the study at every end and value.

    Raises:
        InputError: A parameter cannot be read, or is not for a sweep.
        StudyError: The study refuses a value.
    """
    if not texts:
        msg = (
            "there is nothing to vary: give at least one --param, "
            "e.g. --param training.learning_rate=1e-4..1e-1:log"
        )
        raise InputError(msg)
    parameters = tuple(_parse(text) for text in texts)
    keys = [parameter.key for parameter in parameters]
    for key in keys:
        if keys.count(key) > 1:
            msg = f"--param {key} is given twice: put all of its values into one."
            raise InputError(msg)
    for parameter in parameters:
        for value in _ends(parameter):
            _try(study, parameter.key, value)
    return parameters


def combinations(parameters: Sequence[Parameter]) -> int | None:
    """Return how many combinations there are; None where a range has no end of values."""
    lists = [p for p in parameters if isinstance(p, Choice)]
    if len(lists) < len(parameters):
        return None
    return math.prod(len(choice.values) for choice in lists)


def read_aliases(texts: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each parameter whose key was written in another way."""
    written = [text.partition("=")[0].strip() for text in texts]
    return tuple(f"{key} was read as {ALIASES[key]}." for key in written if key in ALIASES)


def chosen_value(parameter: Parameter, drawn: object) -> Any:  # any TOML value
    """Return the study's value for what the sampler has drawn."""
    return json.loads(str(drawn)) if isinstance(parameter, Choice) else drawn


def _parse(text: str) -> Parameter:
    key, sign, values = (part.strip() for part in text.partition("="))
    if not sign or not key or not values:
        msg = (
            f"--param {text} cannot be read: write KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C, "
            "e.g. training.batch_size=8,16,32"
        )
        raise InputError(msg)
    key = ALIASES.get(key, key)
    annotation = _annotation_of(key)
    return _range(key, values, annotation) if ".." in values else _choice(key, values)


def _range(key: str, text: str, annotation: object) -> Range:
    ends, colon, scale = text.partition(":")
    if colon and scale.strip() != "log":
        msg = f"--param {key}: unknown scale {scale.strip()!r}; write LOW..HIGH or LOW..HIGH:log."
        raise InputError(msg)
    low, high = (_number(key, end) for end in ends.split("..", 1))
    leaves = set(_leaves(annotation))
    if not leaves & {int, float}:
        msg = f"--param {key}={text}: {key} is no number, so it has no range: write {key}=A,B,C."
        raise InputError(msg)
    is_whole = float not in leaves
    if is_whole and not (low.is_integer() and high.is_integer()):
        msg = f"--param {key}={text}: {key} is a whole number: give whole numbers as its ends."
        raise InputError(msg)
    if low >= high:
        remedy = (
            f"write {ends.split('..', 1)[1]}..{ends.split('..', 1)[0]}"
            if low > high
            else ("give two different ends, or fix the value with --set")
        )
        msg = f"--param {key}={text}: the low end {low:g} is not below the high end {high:g}: "
        raise InputError(msg + remedy + ".")
    if colon and low <= 0:
        msg = f"--param {key}={text}: a logarithmic range begins above 0, not at {low:g}."
        raise InputError(msg)
    return Range(key, low, high, is_whole, bool(colon))


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"--param {key}: {text.strip()!r} is no number; write LOW..HIGH, e.g. 1e-4..1e-1"
        raise InputError(msg)
    return value


def _choice(key: str, text: str) -> Choice:
    try:
        values = tomllib.loads(f"x = [{text}]")["x"]
    except (ValueError, RecursionError):
        values = [part.strip() for part in text.split(",")]
    lines = tuple(json.dumps(value) for value in values)
    if len(lines) < 2:
        msg = f"--param {key}={text} is one value: add others after commas, or use --set."
        raise InputError(msg)
    if len(set(lines)) < len(lines) or "" in values:
        msg = f"--param {key}={text} holds a value twice, or an empty one: give each once."
        raise InputError(msg)
    return Choice(key, lines)


def _ends(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Choice):
        return [json.loads(line) for line in parameter.values]
    ends = (parameter.low, parameter.high)
    return [int(end) for end in ends] if parameter.is_whole else list(ends)


def _try(study: Study, key: str, value: object) -> None:
    try:
        with_changes(study, {key: value})
    except StudyError as error:
        reason = str(error).removeprefix("the study with these changes is refused: ")
        msg = f"--param {key} cannot be {json.dumps(value)}: {reason}"
        raise StudyError(msg) from None


def _annotation_of(key: str) -> object:
    """Return the type of a study's key.

    Raises:
        InputError: There is no such key, or it is not for a sweep.
    """
    for fixed, reason in _FIXED.items():
        if key == fixed or key.startswith(f"{fixed}."):
            msg = f"{key} cannot be varied in a sweep: {reason}."
            raise InputError(msg)
    known = dict(_keys(Study))
    if key not in known:
        raise InputError(
            _unknown(key, [name for name in known if not name.startswith(tuple(_FIXED))])
        )
    return known[key]


def _keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, object]]:
    for name, entry in model.model_fields.items():
        inner = entry.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", (inner, *entry.metadata)


def _leaves(annotation: object) -> Iterator[object]:
    if isinstance(annotation, tuple):
        annotation = annotation[0]
    parts = get_args(annotation)
    if not parts:
        yield annotation
    elif getattr(annotation, "__origin__", None) is not tuple:
        for part in parts:
            yield from _leaves(part)


def _unknown(key: str, known: Sequence[str]) -> str:
    """Return the sentence for an unknown key, with those it may be meant for."""
    section, _, name = key.rpartition(".")
    beside = sorted(k for k in known if k.rpartition(".")[0] == section)
    nearby, cutoff = (beside, 0.5) if beside else (sorted(known), 0.75)
    meant = [k for k in nearby if _abbreviates(name, k.rpartition(".")[2])]
    ends = {k.rpartition(".")[2]: k for k in nearby}
    alike = [ends[end] for end in get_close_matches(name, ends, cutoff=cutoff)]
    alike += get_close_matches(key, known, n=1)
    close = [repr(k) for k in dict.fromkeys([*meant, *alike])][:_SHOWN]
    hint = f"did you mean {_either(close)}?" if close else f"known here: {', '.join(nearby)}."
    return f"--param {key} is not a key of a study: {hint}"


def _either(names: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _abbreviates(short: str, name: str) -> bool:
    """Return whether the letters are a name's first ones, e.g. ``md`` of ``max_depth``."""
    return short.replace("_", "") == "".join(word[:1] for word in name.split("_"))
