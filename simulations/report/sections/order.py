"""Which sections of evidence the report has, in their order."""

from collections.abc import Callable

from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.sections.worth_joining import make_worth_joining

# A maker returns None where the run has nothing to say to it.
SECTIONS: tuple[Callable[[RunContents], Section | None], ...] = (make_worth_joining,)


def make_sections(contents: RunContents) -> tuple[Section, ...]:
    """Return the sections of evidence of a run, in the order of the page."""
    return tuple(section for make in SECTIONS if (section := make(contents)) is not None)
