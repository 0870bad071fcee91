"""Which series of a study become its channels, and why the others do not."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

from wardround.client.clinic.onboarding.archive_images.series import SourceSeries, SourceStudy
from wardround.client.clinic.onboarding.rules import ChannelRule, ImportRules, StudyRule

ANOTHER_CHOSEN = "another series of the study was chosen"
_LOCALISERS = ("*localizer*", "*localiser*", "*scout*")


class LeftOutError(Exception):
    """A study is not imported; its text is one of a few fixed reasons, without a value of it."""


def choose_series(
    study: SourceStudy, rules: ImportRules, left_out: Counter[str]
) -> dict[str, SourceSeries] | str:
    """Return the series of each channel, or why the study is left out.

    Args:
        left_out: Counts the series that are not taken, by reason.
    """
    chosen: dict[str, SourceSeries] = {}
    images = study.of_kind("image")
    for rule in rules.channels:
        fitting = [series for series in images if not misfit(series, rule)]
        if not fitting:
            if rule.required:
                _count(study, rules, {}, left_out)
                return f"no series for the channel {rule.name}"
            continue
        if len(fitting) > 1 and rule.choose == "only":
            return f"several series for the channel {rule.name}"
        chosen[rule.name] = _best(fitting, rule)
    _count(study, rules, chosen, left_out)
    if not chosen:
        return "no series for any channel"
    uids = [series.uid for series in chosen.values()]
    return "one series for two channels" if len(set(uids)) < len(uids) else chosen


def misfit(series: SourceSeries, rule: ChannelRule, by_header: bool = True) -> str:
    """Return why a series is none for a channel, "" where it may be.

    Args:
        by_header: Whether its files were read; of a picture archive less is known before.
    """
    descriptions = [text for text in series.descriptions if text]
    if rule.modality and series.modality != rule.modality.upper():
        return "another modality"
    if rule.description and not _fits(descriptions, rule.description):
        return "another description"
    if _fits(descriptions, rule.not_description):
        return "a description that is excluded"
    return _misfit_of_header(series, rule, descriptions) if by_header else ""


def _misfit_of_header(series: SourceSeries, rule: ChannelRule, descriptions: list[str]) -> str:
    if rule.body_part and not _fits([series.body_part], rule.body_part):
        return "another body part"
    excluded = {word.upper() for word in rule.exclude_image_types}
    is_localiser = "LOCALIZER" in excluded and _fits(descriptions, _LOCALISERS)
    if excluded & series.image_types or is_localiser:
        return "an image type that is excluded"
    if rule.slice_thickness is not None:
        low, high = rule.slice_thickness
        if series.thickness is None or not low <= series.thickness <= high:
            return "another slice thickness"
    return "too few images" if series.images < rule.minimum_images else ""


def study_misfit(study: SourceStudy, rule: StudyRule) -> str:
    """Return why a study is not looked at, "" where it is."""
    if study.is_mixed:
        return "it names two patients"
    if not study.patient:
        return "it names no patient"
    if rule.description and not _fits([study.description], rule.description):
        return "another study description"
    is_before = rule.date_from and study.date < rule.date_from
    is_after = rule.date_to and study.date > rule.date_to
    return "outside the days of the rules" if is_before or is_after else ""


def _best(series: list[SourceSeries], rule: ChannelRule) -> SourceSeries:
    if rule.choose == "largest":
        return max(series, key=lambda one: (one.images, one.moment, one.uid))
    newest = sorted(series, key=lambda one: (one.moment, one.number, one.uid))
    return newest[0] if rule.choose == "oldest" else newest[-1]


def _count(
    study: SourceStudy,
    rules: ImportRules,
    chosen: dict[str, SourceSeries],
    left_out: Counter[str],
) -> None:
    taken = {series.uid for series in chosen.values()}
    for series in study.of_kind("image"):
        if series.uid in taken:
            continue
        reasons = [misfit(series, rule) for rule in rules.channels]
        left_out[ANOTHER_CHOSEN if "" in reasons else reasons[0]] += 1
    others = study.of_kind("other")
    if others:
        left_out["no images"] += len(others)


def _fits(texts: Iterable[str], patterns: Iterable[str]) -> bool:
    folded = [text.casefold() for text in texts]
    return any(fnmatchcase(text, pattern.casefold()) for pattern in patterns for text in folded)
