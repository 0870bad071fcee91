"""What a study may ask for in ``[statistics]``."""

from collections.abc import Iterator, Sequence

from wardround.common.study.plans.statistics import MOST_CELLS, cell_count
from wardround.common.study.sections.statistics import StatisticsSection
from wardround.common.study.study import Study


def statistics_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of statistics that the study breaks."""
    asked = study.statistics
    if asked.intensity is not None and not asked.intensity[0] < asked.intensity[1]:
        yield (
            f"statistics.intensity = {list(asked.intensity)} goes nowhere: give the least "
            "intensity that is counted, then the greatest."
        )
    yield from _combat_is_asked(study)
    yield from _combat_is_applied(study)
    if not asked.ask:
        return
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
    if asked.combat:
        return
    yield from _histograms_fit(study)


def _histograms_fit(study: Study) -> Iterator[str]:
    of_number = study.task.outcome == "number"
    if study.data.kind == "table" and not of_number:
        yield (
            "statistics.ask is for images, and for the number that a regression predicts: this "
            "table has neither spacing nor intensity; remove it."
        )
        return
    if of_number and not study.outcome.width > 0:
        return  # another rule says so
    if (cells := cell_count(study)) > MOST_CELLS:
        yield (
            f"the statistics have {cells} cells, and at most {MOST_CELLS} leave a site: lower "
            "statistics.intensity_bins, or ask for fewer channels or classes."
        )


def _combat_is_asked(study: Study) -> Iterator[str]:
    asked, known = study.statistics.combat, {one.name: one for one in study.data.covariates}
    names = [one.name for one in asked]
    if unknown := next((name for name in names if name not in known), None):
        yield f"statistics.combat names {unknown!r}, which is none of data.covariates: add it."
    elif asked:
        yield from _columns_fit(study)
    if asked and study.data.combat is not None:
        yield "data.combat was fitted already, and statistics.combat asks anew: remove one of them."
    if asked and study.privacy.mode == "patient":
        yield (
            "statistics.combat with privacy.mode = 'patient' would need noise on its sums, which "
            "hides what a small site's patients share: use data.covariate_scaling = 'site', for "
            "which nothing leaves, or mode 'none'."
        )


def _columns_fit(study: Study) -> Iterator[str]:
    asked, known = study.statistics.combat, {one.name: one for one in study.data.covariates}
    names = [one.name for one in asked]
    if len(set(names)) != len(names):
        yield f"statistics.combat = {names} names a covariate twice: use each name once."
    features = [one.name for one in asked if not one.preserve]
    if len(features) < 2:
        yield (
            "ComBat shares what it learns of a site between covariates, and statistics.combat has "
            f"{len(features)} to change: give two at least that are not preserved."
        )
    if category := next((name for name in features if known[name].values), None):
        yield f"ComBat changes numbers, and {category!r} has categories: set its preserve = true."
    yield from _lacking_fits(features, [one.name for one in asked if one.preserve], study)
    for one in asked:
        if not known[one.name].values and not one.low < one.high:
            yield (
                f"statistics.combat counts {one.name} from {one.low:g} to {one.high:g}: give the "
                "least value that a patient can have as low, and the greatest as high."
            )


def _lacking_fits(features: Sequence[str], preserved: Sequence[str], study: Study) -> Iterator[str]:
    """Say where a feature would come out missing, and has no flag that says so."""
    optional = set(study.data.optional)
    lacking = next((name for name in preserved if name in optional), None)
    fixed = next((name for name in features if name not in optional), None)
    if lacking and fixed:
        yield (
            f"ComBat cannot change {fixed!r} of a patient without {lacking!r}, which data.optional "
            f"names: add {fixed!r} to data.optional too."
        )


def _combat_is_applied(study: Study) -> Iterator[str]:
    combat, known = study.data.combat, {one.name: one for one in study.data.covariates}
    if combat is None:
        return
    named = (*combat.features, *combat.preserve)
    if unknown := next((name for name in named if name not in known), None):
        yield f"data.combat names {unknown!r}, which is none of data.covariates: fit it anew."
        return
    if len(set(named)) != len(named) or len({one.name for one in combat.sites}) < len(combat.sites):
        yield "data.combat names a covariate or a site twice: fit it anew."
    if category := next((name for name in combat.features if known[name].values), None):
        yield f"data.combat changes {category!r}, which has categories: fit it anew."
    count, columns = len(combat.features), sum(known[name].width for name in combat.preserve)
    rows = [combat.means, combat.effects, *(p for s in combat.sites for p in (s.shifts, s.scales))]
    if any(len(row) != count for row in rows) or any(len(r) != columns for r in combat.effects):
        yield (
            f"data.combat has not {count} numbers a list and {columns} effects for each: fit it "
            "anew with 'wardround study plan'."
        )
    yield from _lacking_fits(combat.features, combat.preserve, study)
    if study.privacy.mode != "none":
        yield (
            f"data.combat with privacy.mode = {study.privacy.mode!r}: its numbers come from the "
            "patients without noise, so the promise would not hold. Remove it, and use "
            "data.covariate_scaling = 'site', for which nothing leaves."
        )
