"""A site's words for the classes of a study: in the manifest, and as values of its masks.

What a cell or a mask says is looked up in ``[labels.words]`` of the site's ``site.toml``, then
among the study's codes and words (``[data.labels]``), and else is the class's own name or number. A
target that is no class or code of the study is for another study, and is passed over.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import UnreadableError
from wardround.client.site.folder import Site
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import Label, UnusableLabelError
from wardround.common.errors import DataError, nearest
from wardround.common.study.study import Study

ANY_LABEL = 32_766  # of a mask that is still to be mapped; one more is what nobody annotated
_SEPARATORS = ("|", ";")


@dataclass(frozen=True, slots=True)
class LabelWords:
    """What words of one site, or of a study alone, stand for.

    Attributes:
        classes: Class by word, without case and outer blanks.
        values: Class by value of a mask; empty where masks hold the study's own numbers.
        annotated: The classes that the site has annotated, in order; None for all of them.
        others: Words that the site has given to no class of the study, of the column boxes: what
            they name is passed over.
    """

    classes: dict[str, str] = field(default_factory=dict)
    values: dict[int, int] = field(default_factory=dict)
    annotated: tuple[int, ...] | None = None
    others: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """SHA-256 over what is mapped, 64 hexadecimal digits; "" where nothing is."""
        if not self.classes and self.annotated is None:
            return ""
        said = {"words": self.classes, "annotated": self.annotated}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def read(self, text: str, study: Study) -> Label | None:
        """Return the numbers that a cell of the column label stands for; None without that column.

        Raises:
            UnusableLabelError: It is empty, or no class; says the nearest word that is known.
        """
        labels = task_of(study).labels
        if labels is None or study.task.column != "label":
            return None
        try:
            return labels.read(self._translated(text, study), study)
        except UnusableLabelError as error:
            raise UnusableLabelError(error.fact, error.remedy + self._hint(text, study)) from None

    def label_count(self, study: Study) -> int:
        """Return how many labels a mask may have before it is mapped."""
        return ANY_LABEL + 1 if self.values else study.class_count

    def map_mask(self, values: NDArray[np.generic], study: Study) -> NDArray[np.generic]:
        """Return a mask with the site's values as class indices; as many as there are: ignored.

        Raises:
            UnreadableError: It holds a value that is mapped to no class.
        """
        if not self.values:
            return values
        known = {0: 0, **self.values}
        table = np.full(ANY_LABEL + 2, -1, dtype=np.int16)
        table[list(known)] = list(known.values())
        ignores = study.data.ignore_label is not None
        if ignores:
            table[ANY_LABEL + 1] = study.class_count
        mapped = table[values.astype(np.int64)]
        if (mapped < 0).any():
            strange = np.unique(values[mapped < 0])[:5]
            classes = study.data.classes
            said = ", ".join(f"{value} is {classes[place]}" for value, place in known.items())
            msg = (
                f"it holds the value {', '.join(f'{value:g}' for value in strange)}, and the "
                f"site's words know only: {said}. Add it to [labels.words] of site.toml."
            )
            raise UnreadableError(msg)
        return mapped.astype(np.uint8 if study.class_count + ignores <= 256 else np.int16)

    def _translated(self, text: str, study: Study) -> str:
        whole = self.classes.get(_plain(text))
        if whole is not None or not study.data.multi_label:
            return text if whole is None else whole
        for sign in _SEPARATORS[:-1]:
            text = text.replace(sign, _SEPARATORS[-1])
        parts = (part.strip() for part in text.split(_SEPARATORS[-1]))
        return ";".join(self.classes.get(_plain(part), part) for part in parts)

    def _hint(self, text: str, study: Study) -> str:
        known = [*study.data.classes, *self.classes]
        for part in text.replace("|", ";").split(";"):
            word = part.strip()
            if word and _plain(word) not in self.classes and word not in study.data.classes:
                close = nearest(word, known)
                more = f", or one of the words {', '.join(self.classes)}" if self.classes else ""
                return f"{more} (did you mean {close!r}?)" if close else more
        return ""


def label_words(site: Site | None, study: Study) -> LabelWords:
    """Return the words of a site for the classes of a study; of the study alone without a site.

    Raises:
        DataError: The site has annotated some of the classes, and the study needs all.
    """
    labels, classes = study.data.labels, study.data.classes
    by_code = {_plain(code): name for name, code in labels.codes.items()}
    words = {**{_plain(word): name for word, name in labels.words.items()}, **by_code}
    others = set[str]()
    if site is not None:
        for word, target in site.settings.labels.words.items():
            meant = target if target in classes else by_code.get(_plain(target))
            if meant is not None:
                words[_plain(word)] = meant
            elif study.task.column == "boxes":
                others.add(_plain(word))
    values: dict[int, int] = {}
    if study.task.column == "mask":
        values = {
            int(word): classes.index(name)
            for word, name in words.items()
            if word.isascii() and word.isdecimal() and int(word) <= ANY_LABEL
        }
    annotated = None if site is None else _annotated(site, study, by_code)
    return LabelWords(words, values, annotated, frozenset(others))


def _annotated(site: Site, study: Study, by_code: dict[str, str]) -> tuple[int, ...] | None:
    said, classes = site.settings.labels.annotated, study.data.classes
    if said is None:
        return None
    names = {name if name in classes else by_code.get(_plain(name)) for name in said}
    dense = study.task.dense
    if dense:
        names.add(classes[0])  # whoever has annotated anything has left the rest unmarked
    found = tuple(place for place, name in enumerate(classes) if name in names)
    if len(found) == len(classes):
        return None
    missing = _listed(name for name in classes if name not in names)
    if not study.data.labels.partial:
        msg = (
            f"this site has not annotated {missing} ([labels] of site.toml), and the study needs "
            "every class of it: annotate them, or have the study set data.labels.partial."
        )
        raise DataError(msg)
    if len(found) <= int(dense):
        msg = (
            f"this site has annotated none of the study's classes: {missing}. Add what it has to "
            "annotated in [labels] of site.toml."
        )
        raise DataError(msg)
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _plain(word: str) -> str:
    return " ".join(word.split()).casefold()
