"""The report's section on images that got worse: noise, blur, greys, files, scanners."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wardround.simulations.evidence.corruption_error import (
    CorruptionErrors,
    errors_of,
    mean_corruption_error,
    relative_corruption_error,
)
from wardround.simulations.report.charts.pictures import picture_uri
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Image, Section
from wardround.simulations.run_files.stress import (
    BOX_F1,
    CLEAN,
    LOCAL,
    CorruptionRow,
    read_corruptions,
    read_examples,
)

_HOLDS = 0.02  # of the error: less is not worth a sentence


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is told of a model that names no class of a whole image.

    Attributes:
        whole: Follows "1 less".
    """

    short: str
    title: str
    whole: str


_MASKS = _Measure("Dice", "mean Dice", "the mean Dice over the foreground classes")
_BOXES = _Measure(
    BOX_F1,
    "the F1 of its boxes",
    "the F1 of the boxes with a score of one half or more, hits at IoU .50: the mean over classes",
)


def _measure_of(contents: RunContents) -> _Measure | None:
    if contents.study is None or not (contents.study.task.dense or contents.study.task.boxes):
        return None
    return _MASKS if contents.study.task.dense else _BOXES


def corruptions_section(contents: RunContents) -> Section | None:
    """Return the section; None where the run's models met no worse images."""
    rows = read_corruptions(contents.folder)
    models = tuple(dict.fromkeys(row.model for row in rows))
    errors = [found for model in models if (found := errors_of(rows, model)) is not None]
    if not errors:
        return None
    own, baseline = errors[0], errors[1] if len(errors) > 1 else None
    told = _measure_of(contents)
    return Section(
        anchor="corruptions",
        title="Does it still work when the images are worse?",
        answer=tuple(_answer(own, baseline, told)),
        tables=tuple(_tables(own, baseline, told)),
        images=_images(contents),
        notes=tuple(_notes(own, told, contents.own_data)),
    )


def _answer(
    own: CorruptionErrors, baseline: CorruptionErrors | None, told: _Measure | None
) -> Iterator[str]:
    worst, clean = own.worst, own.clean
    step = f"{worst.corruption} of severity {worst.severity}"
    if worst.error <= clean.error + _HOLDS:
        yield (
            f"None of the {len(own.rows)} kinds of worse images that were tried harms the "
            f"{own.model} model: at worst ({step}) {_harm(worst, clean, told)}."
        )
    else:
        yield f"The worst for the {own.model} model is {step}: {_harm(worst, clean, told)}."
    harmless = [
        name for name, by in own.rows.items() if _largest(by.values()) <= clean.error + 0.05
    ]
    if harmless:
        yield (
            f"{len(harmless)} of {len(own.rows)} kinds add at most 0.05 to the error at any "
            f"severity that was tried: {', '.join(harmless)}."
        )
    if baseline is not None:
        yield _compared(own, baseline)


def _harm(worst: CorruptionRow, clean: CorruptionRow, told: _Measure | None) -> str:
    if told is not None:
        return (
            f"{told.title} is {1 - worst.error:.2f} {_between(1 - worst.high, 1 - worst.low)}, and "
            f"{1 - clean.error:.2f} on the images as they are"
        )
    return (
        f"of 100 examinations, taken evenly from the classes, {100 * worst.error:.0f} "
        f"{_between(100 * worst.low, 100 * worst.high, 0)} are called wrongly, and "
        f"{100 * clean.error:.0f} on the images as they are"
    )


def _between(low: float, high: float, digits: int = 2) -> str:
    return "" if math.isnan(low) else f"({low:.{digits}f} to {high:.{digits}f})"


def _compared(own: CorruptionErrors, baseline: CorruptionErrors) -> str:
    mean = mean_corruption_error(own, baseline)
    relative = relative_corruption_error(own, baseline)
    whose = (
        "the hospitals' own models" if baseline.model == LOCAL else f"the {baseline.model} model"
    )
    says = (
        f"Over all of them it errs {_number(mean)} times as often as {whose} do on the same images "
        "(mean corruption error; below 1 is better)"
    )
    if math.isnan(relative):
        return f"{says}."
    return (
        f"{says}; what the corruptions add to its error is {_number(relative)} times what they "
        "add there (relative corruption error)."
    )


def _tables(
    own: CorruptionErrors, baseline: CorruptionErrors | None, told: _Measure | None
) -> Iterator[Table]:
    yield _table(own, told)
    if baseline is not None:
        yield _table(baseline, told)


def _table(errors: CorruptionErrors, told: _Measure | None) -> Table:
    severities = sorted({severity for by in errors.rows.values() for severity in by})
    known = [row.error for by in errors.rows.values() for row in by.values()]
    low, high = min([errors.clean.error, *known]), max([errors.clean.error, *known])
    rows = [
        (
            name,
            tuple(
                _cell(by.get(severity), (low, high), severity == severities[-1])
                for severity in severities
            ),
        )
        for name, by in errors.rows.items()
    ]
    clean = _cell(errors.clean, (low, high), True)
    rows.insert(0, ("as they are", (clean, *(Cell("") for _ in severities[1:]))))
    measure = "balanced error" if told is None else f"1 - {told.short}"
    whose = "each hospital's own model" if errors.model == LOCAL else f"the {errors.model} model"
    caption = (
        f"{measure[0].upper()}{measure[1:]} of {whose} on test images ({errors.site}) by severity; "
        "lower is better, and the stronger the colour, the better. Below the last: 95 % interval."
    )
    return Table(caption, "corruption", tuple(f"{one}" for one in severities), tuple(rows), "heat")


def _cell(row: CorruptionRow | None, ends: tuple[float, float], with_interval: bool) -> Cell:
    if row is None or math.isnan(row.error):
        return Cell("–")
    low, high = ends
    shade = 50 if high == low else round(100 * (high - row.error) / (high - low))
    known = with_interval and not math.isnan(row.low)
    note = f"{row.low:.3f} to {row.high:.3f}" if known else ""
    return Cell(f"{row.error:.3f}", note, shade)


def _images(contents: RunContents) -> tuple[Image, ...]:
    examples = read_examples(contents.folder)
    if examples is None:
        return ()
    return tuple(
        Image(
            picture_uri(image),
            f"a test image, {_as_words(name, examples.severity)}",
            _as_words(name, examples.severity),
        )
        for name, image in zip(examples.names, examples.images, strict=True)
    )


def _as_words(name: str, severity: int) -> str:
    return "as it is" if name == CLEAN else f"{name}, severity {severity}"


def _notes(own: CorruptionErrors, told: _Measure | None, own_data: bool) -> Iterator[str]:
    what = (
        "1 less the mean recall of the classes, so that a rare class counts as much as another"
        if told is None
        else f"1 less {told.whole}"
    )
    yield (
        f"{own.clean.examinations} examinations of {own.clean.patients} patients, each made worse "
        f"in its own grey values before any preparation. The error is {what}. Intervals are of a "
        "bootstrap over patients and hold for one cell; over a whole table some miss by chance. "
        "Corruptions are simulated, and a real device may do worse."
    )
    if own_data:
        yield "The pictures are of a patient: keep this page where those may be seen."


def _largest(rows: Iterable[CorruptionRow]) -> float:
    return max((row.error for row in rows), default=math.inf)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
