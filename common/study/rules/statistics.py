"""What a study may ask for in ``[statistics]``."""

from collections.abc import Iterator

from wardround.common.study.plans.statistics import MOST_CELLS, cell_count
from wardround.common.study.sections import StatisticsSection
from wardround.common.study.study import Study


def statistics_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of statistics that the study breaks."""
    asked = study.statistics
    if asked.intensity is not None and not asked.intensity[0] < asked.intensity[1]:
        yield (
            f"statistics.intensity = {list(asked.intensity)} goes nowhere: give the least "
            "intensity that is counted, then the greatest."
        )
    if not asked.ask:
        return
    if study.data.kind == "table":
        yield "statistics.ask is for images: a table has neither spacing nor intensity; remove it."
        return
    if (cells := cell_count(study)) > MOST_CELLS:
        yield (
            f"the statistics have {cells} cells, and at most {MOST_CELLS} leave a site: lower "
            "statistics.intensity_bins, or ask for fewer channels or classes."
        )
    if study.privacy.mode == "site":
        yield (
            "statistics.ask with privacy.mode = 'site' would tell a server of single hospitals "
            "what the mode promises not to: plan with mode 'none' or 'patient'."
        )
    epsilon, default = asked.epsilon, StatisticsSection.model_fields["epsilon"].default
    if study.privacy.mode != "patient" and epsilon != default:
        yield (
            f"statistics.epsilon = {epsilon:g} has no effect with privacy.mode = "
            f"{study.privacy.mode!r}: remove it, or set the mode to 'patient'."
        )
