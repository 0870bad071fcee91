"""Which sections of evidence the report has, in their order."""

from collections.abc import Callable

from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.scores.calibration import make_calibration
from wardround.simulations.report.sections.scores.decisions import make_decisions
from wardround.simulations.report.sections.scores.discrimination import make_discrimination
from wardround.simulations.report.sections.section import Section

# A maker returns None where the run has nothing to say to it.
SECTIONS: tuple[Callable[[RunContents], Section | None], ...] = (
    make_discrimination,
    make_calibration,
    make_decisions,
)


def make_sections(contents: RunContents) -> tuple[Section, ...]:
    """Return the sections of evidence of a run, in the order of the page."""
    return tuple(section for make in SECTIONS if (section := make(contents)) is not None)
