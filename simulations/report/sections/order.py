"""Which sections of evidence the report has, in their order."""

from collections.abc import Callable

from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.adversarial import adversarial_section
from wardround.simulations.report.sections.beyond.generalisation import generalisation_section
from wardround.simulations.report.sections.beyond.waves import waves_section
from wardround.simulations.report.sections.corruptions import corruptions_section
from wardround.simulations.report.sections.detection import detection_section
from wardround.simulations.report.sections.explanations import explanations_section
from wardround.simulations.report.sections.outcomes import outcomes_section
from wardround.simulations.report.sections.scores.calibration import calibration_section
from wardround.simulations.report.sections.scores.decisions import decisions_section
from wardround.simulations.report.sections.scores.discrimination import discrimination_section
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.sections.segmentation import segmentation_section
from wardround.simulations.report.sections.subgroups import subgroups_section
from wardround.simulations.report.sections.worth_joining import worth_joining_section

# A maker returns None where the run has nothing to say to it.
SECTIONS: tuple[Callable[[RunContents], Section | None], ...] = (
    worth_joining_section,
    waves_section,
    subgroups_section,
    discrimination_section,
    calibration_section,
    decisions_section,
    segmentation_section,
    outcomes_section,
    detection_section,
    generalisation_section,
    corruptions_section,
    adversarial_section,
    explanations_section,
)


def make_sections(contents: RunContents) -> tuple[Section, ...]:
    """Return the sections of evidence of a run, in the order of the page."""
    return tuple(section for make in SECTIONS if (section := make(contents)) is not None)
