"""Did it forget? What a sequence of studies learnt and lost, wave by wave of data."""

import math

from wardround.server.checkpoints.promotions import ALL_SITES, ENDLESS, SiteFall
from wardround.simulations.evidence.waves import Sequel, falls_of, sequel_of
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title, signed
from wardround.simulations.run_files.waves import read_waves

_NOTE = (
    "Each value is of all hospitals' test patients of a wave, whom no study of the sequence was "
    "trained on. Average: over all waves, after the last. Backward transfer: what the earlier "
    "waves gained since they were learnt. Forgetting: what they lost from their best. Forward "
    "transfer: what a wave gained before it was learnt, over a model that nobody has trained. "
    "Plasticity: what learning a wave was worth on it (Lopez-Paz and Ranzato 2017; Chaudhry et "
    "al. 2018). The values of one sequence: another seed gives others."
)


def waves_section(contents: RunContents) -> Section | None:
    """Return the part on waves; None of a run whose study goes on from no other."""
    if contents.study is None or contents.study.continual is None:
        return None
    rows = read_waves(contents.folder)
    found = sequel_of(rows)
    if found is None or len(found.waves) < 2:
        return None
    falls = falls_of(rows, contents.study)
    fallen = (_falls(falls, found.metric),) if falls else ()
    return Section(
        anchor="waves",
        title="Did it forget what it had learnt?",
        answer=(_answer(found), *_promotion(falls)),
        tables=(_matrix(found), _summary(found), *fallen),
        notes=(_NOTE,),
    )


def _answer(found: Sequel) -> str:
    metric, title = found.metric, metric_title(found.metric)
    lost = found.forgetting
    if math.isnan(lost):
        return f"What was forgotten in {title} was not measured."
    verb = "lost" if lost > 0 else "gained"
    return (
        f"On the earlier waves the model {verb} {number(abs(lost), metric)} {title} on average, "
        f"and learning the new ones was worth {signed(found.plasticity, metric)} on them."
    )


def _promotion(falls: tuple[SiteFall, ...]) -> tuple[str, ...]:
    sites = [one for one in falls if one.site != ALL_SITES]
    if not sites:
        return ()
    if beyond := [one for one in sites if one.is_beyond]:
        return (f"It falls beyond the margin at {_places(beyond)}: it is not promoted.",)
    if doubtful := [one for one in sites if one.is_doubtful]:
        return (
            f"No hospital falls beyond its margin for certain; at {_places(doubtful)} there are "
            "too few patients to tell, and all hospitals together decide.",
        )
    return ("No hospital falls beyond its margin: the model may be promoted.",)


def _places(falls: list[SiteFall]) -> str:
    return ", ".join(dict.fromkeys(f"{one.site} (wave {one.wave})" for one in falls))


def _matrix(found: Sequel) -> Table:
    rows = tuple(
        (
            f"after wave {after}",
            tuple(
                Cell(_shown(found.after.get((after, wave)), found.metric), marked=after == wave)
                for wave in found.waves
            ),
        )
        for after in found.waves
        if any((after, wave) in found.after for wave in found.waves)
    )
    columns = tuple(f"wave {wave}" for wave in found.waves)
    caption = f"{sentence_title(found.metric)} on the test patients of each wave."
    return Table(caption, "model", columns, rows)


def _summary(found: Sequel) -> Table:
    values = (
        ("average", number(found.average, found.metric)),
        ("backward transfer", signed(found.backward_transfer, found.metric)),
        ("forward transfer", signed(found.forward_transfer, found.metric)),
        ("forgetting", number(found.forgetting, found.metric)),
        ("plasticity", signed(found.plasticity, found.metric)),
    )
    rows = tuple((name, (Cell(text),)) for name, text in values)
    return Table("What was learnt and lost.", "", (metric_title(found.metric),), rows)


def _falls(falls: tuple[SiteFall, ...], metric: str) -> Table:
    rows = tuple(
        (
            f"{one.site}, wave {one.wave}",
            (
                Cell(number(one.before, metric)),
                Cell(number(one.now, metric)),
                Cell(signed(-one.fall, metric), marked=one.is_beyond),
                Cell(_reach(one, metric)),
                Cell(number(one.margin, metric)),
                Cell("–" if one.patients is None else str(one.patients)),
            ),
        )
        for one in falls
    )
    columns = ("parent", "now", "gain", "±", "may fall by", "patients")
    return Table("Against the model that it goes on from.", "hospital", columns, rows)


def _reach(fall: SiteFall, metric: str) -> str:
    known = fall.reach is not None and fall.reach < ENDLESS
    return number(fall.reach, metric) if known and fall.reach is not None else "–"


def _shown(value: float | None, metric: str) -> str:
    return "–" if value is None else number(value, metric)
