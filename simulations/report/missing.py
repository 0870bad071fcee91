"""Why a value is missing: the small print under a dash."""

from wardround.simulations.report.contents import RunContents
from wardround.simulations.run_files.folder import ALL_SITES, MetricRow, SplitRow


def why_missing(contents: RunContents, row: MetricRow | None, site: str, class_name: str) -> str:
    """Return the reason for a dash.

    Args:
        contents: The run.
        row: The row with NaN; None if there is no such row.
        site: Whose patients.
        class_name: One class, or "" for the metric over all classes.
    """
    if class_name and (reason := _why_no_class(contents, site, class_name)):
        return reason
    if row is None:
        return "not measured"
    if row.support == 0 and (class_name or not _tests_somebody(contents, site)):
        return "no such test case" if class_name else "no test patients"
    if row.metric == "auroc":
        return "needs two classes"
    return "not defined here"


def _why_no_class(contents: RunContents, site: str, class_name: str) -> str:
    held = [
        r
        for r in contents.split
        if r.class_name == class_name and (r.site == site or site == ALL_SITES)
    ]
    if (held and not any(r.examinations for r in held)) or _known_absent(contents, site, held):
        return "no such class here"
    if held and not any(r.examinations for r in held if r.split == "test"):
        return "no such test patient"
    return ""


def _tests_somebody(contents: RunContents, site: str) -> bool:
    """Return whether the split gives test patients to the site."""
    return any(
        row.examinations
        for row in contents.split
        if row.split == "test" and not row.class_name and site in (row.site, ALL_SITES)
    )


def _known_absent(contents: RunContents, site: str, held: list[SplitRow]) -> bool:
    """Return whether the split counts classes at this site but not this one."""
    if held:
        return False
    return any(r.class_name and (r.site == site or site == ALL_SITES) for r in contents.split)
