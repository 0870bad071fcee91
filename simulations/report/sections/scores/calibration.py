"""Whether a probability of the model means what it says, and whether a temperature mends it."""

from collections.abc import Sequence

import numpy as np

from wardround.simulations.evidence.answers import answers_at, parts_at
from wardround.simulations.evidence.calibrated import find_temperature
from wardround.simulations.evidence.intervals.statements import Statements, statements_of
from wardround.simulations.evidence.released import Release, release_of_run
from wardround.simulations.report.charts.printed import (
    out_of_100,
    percent,
    plural,
)
from wardround.simulations.report.charts.reliability import (
    FEWEST_DRAWN,
    draw_reliability,
    draw_said,
)
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.scores.calibration_tables import (
    Calibrated,
    calibration_tables,
)
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import number
from wardround.simulations.run_files.folder import FEDERATED

_FEWEST = 10  # statements for which a share is worth a sentence
_WINDOW = 0.05  # around the probability that the sentence is about
_SHIFTED = 0.05  # a difference in prevalence that a temperature is misled by


def calibration_section(contents: RunContents) -> Section | None:
    """Return the section; None where the run kept no scores."""
    if contents.study is None or not contents.scores:
        return None
    multi_label = contents.study.data.multi_label
    test, validation = (
        answers_at(contents.scores, FEDERATED, contents.sites, split, multi_label)
        for split in ("test", "validation")
    )
    if test is None:
        return None
    parts = list(parts_at(contents.scores, FEDERATED, contents.sites, "validation"))
    run = Calibrated(contents, test, validation, find_temperature(parts, multi_label))
    named = [("as it is", statements_of(test))]
    if run.cooled is not None:
        named.append((f"with temperature {run.temperature.fitted:.2f}", statements_of(run.cooled)))
    what = _what_is_stated(run)
    figures = (
        draw_reliability(
            f"What the federated model says of test examinations ({what}) and how often it is so; "
            "upright: 95 % intervals. Above the dotted line it is too cautious, below too sure. "
            f"Tenths with fewer than {FEWEST_DRAWN} statements are in the table alone.",
            named,
        ),
        draw_said(f"How often the federated model says so much, as it is ({what}).", named[0][1]),
    )
    return Section(
        "calibration",
        "Does 80 % mean 80 %?",
        tuple(_answer(run)),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=tuple(calibration_tables(run)),
        notes=tuple(_notes(run)),
    )


def _what_is_stated(run: Calibrated) -> str:
    if run.test.multi_label:
        return "every label"
    names = run.contents.classes
    return f"that it is {names[1]}" if len(names) == 2 else "its most probable class"


def _answer(run: Calibrated) -> list[str]:
    statements = statements_of(run.test)
    sentences = [_means(statements), _in_the_large(run, statements), _mended(run)]
    if run.cooled is not None and (shift := _shift(run)):
        sentences.append(shift)
    return sentences


def _means(statements: Statements) -> str:
    """Say what a probability of 80 % means, or of another one that is often said."""
    windows = [(p, statements.between(p - _WINDOW, p + _WINDOW)) for p in (0.8, 0.9, 0.7, 0.6, 0.2)]
    level, there = next((w for w in windows if len(w[1]) >= _FEWEST), windows[0])
    if len(there) < _FEWEST:
        return (
            "What it means when the model says 80 % cannot be told: it says so of "
            f"{plural(len(there), 'test examination')}."
        )
    share, said = there.share, float(there.said.mean())
    word = "about as often as it says"
    if share.is_known and not share.low <= said <= share.high:
        word = "less often than it says" if share.high < said else "more often than it says"
    return (
        f"When the federated model says about {percent(level)}, it is so in {out_of_100(share)}: "
        f"{word}. That is {plural(len(there), 'statement')} on test patients."
    )


def _in_the_large(run: Calibrated, statements: Statements) -> str:
    share, said = statements.share, float(statements.said.mean())
    if not share.is_known:
        return ""
    sure = "it says about as much as is so"
    if not share.low <= said <= share.high:
        sure = "it says too little" if said < share.low else "it says too much"
    return (
        f"On the mean it says {percent(said)} ({_what_is_stated(run)}), and it is so in "
        f"{out_of_100(share)}: {sure}. Its expected calibration error is "
        f"{number(statements.error)}; chance alone gives a calibrated model "
        f"{number(statements.chance_error)} with as many statements."
    )


def _mended(run: Calibrated) -> str:
    temperature, cooled = run.temperature, run.cooled
    if cooled is None:
        return f"It was not recalibrated: {temperature.reason}."
    before, after = statements_of(run.test).error, statements_of(cooled).error
    direction = "surer of itself" if temperature.fitted < 1 else "more cautious"
    word = "which helps" if after < before - 0.005 else "which changes little"
    if after > before + 0.005:
        word = "which makes it worse here"
    said = (
        f"A temperature of {temperature.fitted:.2f}, fitted on {temperature.patients} validation "
        f"patients, makes it {direction}: the error goes from {number(before)} to "
        f"{number(after)} on test patients, {word}."
    )
    release = _release(run)
    if release.temperature is None:
        return f"{said} It is not part of the model: {release.note}."
    return f"{said} It is part of the model's folder, and wardround predict uses it."


def _release(run: Calibrated) -> Release:
    contents = run.contents
    if contents.study is None:
        return Release()
    return release_of_run(contents.scores, contents.sites, contents.study)


def _shift(run: Calibrated) -> str:
    """Warn where the validation patients are not like the test patients."""
    if run.validation is None:
        return ""
    there, here = run.validation.labels.mean(axis=0), run.test.labels.mean(axis=0)
    asked = list(run.test.asked)
    k = asked[int(np.abs(there - here)[asked].argmax())]
    if abs(there[k] - here[k]) < _SHIFTED:
        return ""
    return (
        f"Read it with care: {percent(float(there[k]))} of the validation examinations are "
        f"{run.contents.classes[k]}, but {percent(float(here[k]))} of the test examinations. A "
        "temperature fitted where a class is as common as that can make things worse where it is "
        "not; no fit on other patients can know."
    )


def _notes(run: Calibrated) -> Sequence[str]:
    notes = [
        "ECE has ten bins of equal width (Naeini et al. 2015; Guo et al. 2017). It is never 0: the "
        "column by chance is its mean where each statement comes true as often as it says."
    ]
    if run.cooled is not None:
        notes.append(
            "The temperature comes from each hospital's sums over its validation patients, a few "
            "numbers an exchange; it equals the one that would be fitted to all of them in one "
            "place. It changes no order of scores: the AUROC stays the same."
        )
    return notes
