"""The planned study as a file: every planned key with a comment that says what it comes from."""

from textwrap import wrap

import tomli_w

from wardround.common.study.loading import with_changes
from wardround.common.study.sections.combat import CombatSection
from wardround.common.study.study import Study
from wardround.server.planning.planned_value import PlannedValue
from wardround.server.planning.study_plan import StudyPlan

_WIDTH = 96


def planned_study(study: Study, plan: StudyPlan) -> Study:
    """Return a study with the planned numbers, which asks for no statistics any more.

    Raises:
        StudyError: They do not fit the rest of the study.
    """
    changes: dict[str, object] = {
        one.key: one.value.model_dump() if isinstance(one.value, CombatSection) else one.value
        for one in plan.values
    }
    if "training.patch_size" in changes:
        changes["data.fit"] = "resize"  # of an image that is brought to no size
    changes["statistics.ask"] = False
    if study.statistics.combat:  # fitted: it is not asked for again
        changes["statistics.combat"] = ()
    return with_changes(study, changes, origin="the planned study")


def study_text(study: Study, plan: StudyPlan) -> str:
    """Return the planned study as TOML, with a comment above each planned key."""
    content = study.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    content.get("statistics", {}).pop("ask", None)
    content.get("statistics", {}).pop("combat", None)
    if not content.get("statistics", True):
        del content["statistics"]
    if "training" in content and content["data"].get("fit") == "resize":
        del content["data"]["fit"]
    reasons = {one.key: one for one in plan.values if one.value is not None}
    lines = wrap(
        f"Planned from the statistics of {len(plan.sites)} sites: {sites_in_words(plan)}.",
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
    )
    section = ""
    for line in tomli_w.dumps(content).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            if section in reasons:  # a table of its own
                lines += _comment(reasons[section])
        planned = reasons.get(f"{section}.{line.partition(' = ')[0]}")
        if planned is not None:
            lines += _comment(planned)
        lines.append(line)
    return "\n".join(lines) + "\n"


def sites_in_words(plan: StudyPlan) -> str:
    """Return the sites, each with its training patients where it says how many."""
    return ", ".join(
        f"{site} ({count} training patients)" if count else site
        for site, count in plan.sites.items()
    )


def _comment(planned: PlannedValue) -> list[str]:
    return wrap(planned.reason, _WIDTH, initial_indent="# ", subsequent_indent="# ")
