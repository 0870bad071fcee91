"""What a tracker is told of a run: numbers by site, name and step, the study's keys, files.

A course is the whole of a run as far as it has come. A tracker writes what it does not have yet, so
that a run that is resumed, or told twice, has each number once.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["running", "finished", "failed", "stopped"]
KEPT_STEP = -1  # of the model that is kept, as in metrics.csv
TOGETHER = ("all sites", "mean of sites")  # as server/rounds/evaluation.py calls them
_PLAIN = re.compile(r"[^A-Za-z0-9_\- ]")
_WEIGHTS = ".safetensors"
_LONGEST_PART, _HASH_DIGITS = 80, 8
_LONGEST_VALUE = 500  # characters; MLflow servers of the last years take as many


@dataclass(frozen=True, slots=True)
class Point:
    """One number.

    Attributes:
        site: Whose; "" for the run as a whole.
        name: E.g. "federated/validation/dice" or "federated/round/bytes_up".
        step: The round after which the measured model was made; :data:`KEPT_STEP` for the model
            that is kept. Of what a round took: that round.
    """

    site: str
    name: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Course:
    """A run as far as it has come.

    Attributes:
        key: Tells it from every other run, for good.
        name: What people call it.
        parameters: The study's keys and their values.
        tags: Digest, versions.
        files: What is kept beside the numbers once the run is over: report, model.
    """

    key: str
    name: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...]
    state: State = "running"
    files: tuple[Path, ...] = field(default=())

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have numbers of their own."""
        return tuple(sorted({point.site for point in self.points if point.site}))

    def kept_files(self, models: bool) -> list[Path]:
        """Return the files that are there; without ``models`` no weights are among them."""
        there = (path for path in self.files if path.is_file())
        return [path for path in there if models or path.suffix != _WEIGHTS]


def name_of(model: str, what: str, metric: str, class_name: str = "") -> str:
    """Return how a number is called: "model/what/metric", for a class "model/what/metric.class".

    Every tracker takes these letters, and no name is another one's folder.
    """
    last = f"{plain_part(metric)}.{plain_part(class_name)}" if class_name else plain_part(metric)
    return f"{plain_part(model)}/{plain_part(what)}/{last}"


def plain_part(text: str) -> str:
    """Return a word as part of a name; one that had to be changed ends with its hash."""
    plain = _PLAIN.sub("_", text)[:_LONGEST_PART].strip()
    if plain == text and plain:
        return plain
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{plain}-{digits}"


def parameters_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a study, e.g. "training.learning_rate", each with its value as text."""
    return dict(_flat(content, ""))


def _flat(content: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        key = f"{before}{plain_part(str(name))}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield key, text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
