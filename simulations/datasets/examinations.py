"""What every public data set offers: examinations that point at files, and where they came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wardround.common.errors import InputError, known_names
from wardround.common.study.study import Study

OptionValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class PublicExamination:
    """One examination of a public data set; no pixel is copied.

    Attributes:
        patient: Unit that must stay in one site and one split.
        images: Channel to its location as a manifest writes it: an absolute path, ``x.npy#17``
            or ``x.npz#train_images#17``.
        label: Class name; for multi-label the names joined with ``;``, or ``none``.
        mask: Location of the segmentation, or ""; a classification holds its maps against it.
        natural_site: The hospital it really came from, or "" where that is unknown.
        split: "train", "validation", "test", or "" where the data set does not say.
        covariates: Clinical values as text, by name; "" where missing.
        box: ``top left bottom right`` in pixels, or "".
        row: Of a manifest of the user's own; 0 where there is none.
        boxes: Of a detection, as a manifest writes them: a file, the boxes themselves, or "none".
        wave: Of the data, from 1: when it came.
    """

    patient: str
    images: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    mask: str = ""
    natural_site: str = ""
    split: str = ""
    covariates: Mapping[str, str] = field(default_factory=dict)
    box: str = ""
    row: int = 0
    boxes: str = ""
    wave: int = 1


YOURS, YOURS_TO_STATE = "your own", "yours to state"


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a report must say about the data.

    Attributes:
        md5: Digest of the file, where the data set is one file.
        whose: "" of a public data set; otherwise images may be confidential.
    """

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    md5: str = ""
    whose: str = ""

    def as_text(self) -> dict[str, str]:
        """Return the facts that are known, by name."""
        pairs = {
            "name": self.name,
            "title": self.title,
            "licence": self.licence,
            "citation": self.citation,
            "homepage": self.homepage,
            "md5": self.md5,
            "whose": self.whose,
        }
        return {key: value for key, value in pairs.items() if value}


@dataclass(frozen=True, slots=True)
class Examinations:
    """A data set as a study sees it.

    Attributes:
        notes: Sentences the report must show.
        manifest: The user's own file that the rows stand in; None for a public data set.
    """

    rows: tuple[PublicExamination, ...]
    facts: DatasetFacts
    notes: tuple[str, ...] = ()
    manifest: Path | None = None


@dataclass(frozen=True, slots=True)
class DatasetOption:
    """A key of ``[simulation.options]``.

    Attributes:
        default: Also says the type; an int is accepted for a float.
    """

    default: OptionValue
    meaning: str


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What a loader is asked for.

    Attributes:
        options: Every option of the data set, defaults filled in.
        data_root: Folder that data sets are looked for in, or None.
    """

    options: Mapping[str, OptionValue]
    data_root: Path | None
    study: Study

    def text(self, name: str) -> str:
        """Return an option as text."""
        return str(self.options[name])

    def number(self, name: str) -> int:
        """Return an option as a whole number."""
        return int(self.options[name])


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One line of the catalogue.

    Attributes:
        task: What can be learned from it, for people.
        tasks: The tasks of a study it serves.
        options: The keys of ``[simulation.options]`` it knows.
        is_public: Whether it is one that anybody may have.
    """

    title: str
    licence: str
    citation: str
    homepage: str
    modality: str
    task: str
    tasks: tuple[str, ...]
    load: Callable[[DataRequest], Examinations]
    options: Mapping[str, DatasetOption] = field(default_factory=dict)
    is_public: bool = True

    def facts(self, name: str) -> DatasetFacts:
        """Return the facts for a report, under the catalogue's name."""
        whose = "" if self.is_public else YOURS
        return DatasetFacts(
            name, self.title, self.licence, self.citation, self.homepage, whose=whose
        )

    def own_facts(self, name: str) -> DatasetFacts:
        """Return the facts of a user's own data that are laid out as this public data set is."""
        title = f"your own data, laid out as {self.title}"
        return DatasetFacts(name, title, YOURS_TO_STATE, "", "", whose=YOURS)


def resolve_options(
    known: Mapping[str, DatasetOption], given: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """Fill defaults in and refuse what is unknown or of another type.

    Raises:
        InputError: An option is unknown or has another type than its default.
    """
    resolved = {name: option.default for name, option in known.items()}
    for name, value in given.items():
        if name not in known:
            raise InputError(known_names("option of [simulation.options]", name, known))
        wanted = type(known[name].default)
        fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            msg = (
                f"simulation.options.{name} = {value!r} is not {_TYPE_NAMES[wanted]}: "
                f"{known[name].meaning}"
            )
            raise InputError(msg)
        resolved[name] = value
    return resolved


_TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
