"""One self-contained page from a series of runs: hospitals left out, and seeds."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.tables import read_kept_table
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study
from wardround.simulations.report.page import fill_page
from wardround.simulations.report.sections import seeds
from wardround.simulations.report.sections.beyond import generalisation
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.folder import read_facts
from wardround.simulations.run_files.series import (
    MEASURED,
    MeasuredRow,
    SeriesFacts,
    read_series,
)


@dataclass(frozen=True, slots=True)
class SeriesContents:
    """A finished series in memory.

    Attributes:
        sections: Its parts; the first answer of the first one is the headline.
    """

    folder: Path
    facts: SeriesFacts
    study: Study
    rows: tuple[MeasuredRow, ...]
    sections: tuple[Section, ...]

    @property
    def headline(self) -> str:
        """The sentence to remember."""
        return self.sections[0].answer[0] if self.sections else "Nothing was measured."


def read_series_contents(folder: Path) -> SeriesContents:
    """Read a series.

    Raises:
        InputError: The folder holds none, or one of another version.
    """
    facts, study = read_series(folder), load_study(folder / "study.toml")
    rows = tuple(read_kept_table(folder / MEASURED, MeasuredRow))
    sections = (
        generalisation.section_of(rows, study),
        seeds.section_of(rows, drawn_by_seeds(folder, facts)),
    )
    found = tuple(section for section in sections if section is not None)
    return SeriesContents(folder, facts, study, rows, found)


def drawn_by_seeds(folder: Path, facts: SeriesFacts) -> str:
    """Return what differs between the runs of different seeds, in words."""
    runs = [folder / "runs" / part.name for part in facts.together()]
    held = {
        (run / "assignment.csv").read_bytes() for run in runs if (run / "assignment.csv").exists()
    }
    order = "the first weights and the order of the training patients"
    if len(held) > 1:
        return f"{order}, and the split of the patients"
    return f"{order}; the hospitals and their test patients stay the same"


def write_series_page(folder: Path) -> Path:
    """Write ``report.html`` into a series' folder.

    Raises:
        InputError: The folder holds no series, or the packages that the report needs are not
            installed.
    """
    contents = read_series_contents(folder)
    runs = [(run.name, _status(run)) for run in sorted((folder / "runs").iterdir()) if run.is_dir()]
    text = fill_page(
        "evidence.html.jinja",
        kicker="Wardround report of several runs",
        study=contents.study,
        byline=_byline(contents.facts),
        headline=contents.headline,
        sections=_below_headline(contents.sections),
        runs=runs,
        notes=contents.facts.notes,
        command=shlex.join(contents.facts.command),
    )
    path = folder / "report.html"
    replace_file(path, text, BY_UMASK, durable=False)
    return path


def _below_headline(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """Return the parts without the sentence that stands above them."""
    return tuple(
        section if place else replace(section, answer=section.answer[1:])
        for place, section in enumerate(sections)
    )


def _byline(facts: SeriesFacts) -> str:
    left_out = "Each hospital left out once; " if facts.leave_one_site_out else ""
    seeds = f"seed{'s' if len(facts.seeds) > 1 else ''} {', '.join(map(str, facts.seeds))}"
    return f"{left_out}{seeds}; started {facts.started}"


def _status(run: Path) -> str:
    return read_facts(run).status if (run / "run.json").exists() else "not begun"
