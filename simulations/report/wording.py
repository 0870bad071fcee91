"""The verdict in words: sentences computed from numbers, flattering or not."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wardround.common.statistics.interval import Interval
from wardround.common.study.registry import METRICS
from wardround.server.checkpoints.lost_sites import lost_words
from wardround.simulations.evidence.intervals.outcome_metrics import OF_NUMBERS, OF_TIMES
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.verdict import (
    SiteVerdict,
    Verdict,
    higher_is_better,
    judge_gain,
)
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED

_MOST_LISTED = 5  # hospitals, each with a sentence; the table has them all
Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, slots=True)
class Headline:
    """The top of the report.

    Attributes:
        sentence: The one sentence to remember.
        details: Sentences that back it with numbers.
        tone: Whether it is good news.
    """

    sentence: str
    details: tuple[str, ...]
    tone: Tone


def metric_title(metric: str, length_unit: str = "mm") -> str:
    """Return what a sentence calls a metric, e.g. ``AUROC``, ``HD95 in pixels``."""
    entry = METRICS.get(metric)
    return in_unit(entry.title.split(" (")[0], length_unit) if entry else metric


def in_unit(title: str, length_unit: str) -> str:
    """Return the title of a metric with the unit that a run's distances are in."""
    return title.replace(" in mm", f" in {length_unit}")


def sentence_title(metric: str, length_unit: str = "mm") -> str:
    """Return the title of a metric as the first word of a sentence."""
    title = metric_title(metric, length_unit)
    first = title.split()[0]
    if ":" in title or first != first.lower():  # named by a package, or written so: mAP
        return title
    return title[0].upper() + title[1:]


def number(value: float, metric: str = "") -> str:
    """Return a value as printed: three decimals, millimetres two, an en dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:.{2 if metric == 'hd95' else 3}f}".replace("-", "−")


def spread(interval: Interval | None, metric: str = "") -> str:
    """Return an interval as printed, "" where it cannot be told."""
    if interval is None or not interval.is_known:
        return ""
    return f"{number(interval.low, metric)} to {number(interval.high, metric)}"


def signed(value: float, metric: str = "") -> str:
    """Return a difference with its sign."""
    text = number(value, metric)
    return text if text.startswith(("–", "−")) else f"+{text}"


def compose_headline(contents: RunContents, verdict: Verdict) -> Headline:
    """Return the headline of a run, whatever became of it; a site that was lost comes first."""
    headline = _compose(contents, verdict)
    lost = _lost_sites(contents)
    return replace(headline, sentence=f"{lost} {headline.sentence}") if lost else headline


def _lost_sites(contents: RunContents) -> str:
    """Return who did not train in all rounds, as a sentence; nothing where everybody did."""
    missed, rounds = contents.facts.missed, contents.rounds_done
    without = [site for site, count in missed.items() if count >= rounds]
    words = lost_words(without, missed, rounds)
    return f"Trained {words}." if words else ""


def _compose(contents: RunContents, verdict: Verdict) -> Headline:
    status = contents.facts.status
    if not verdict.compared:
        return _without_comparison(contents, verdict)
    sentence, tone = _who_gained(verdict)
    details = [_means(verdict), _mean_gain(verdict), *_too_few(verdict), *_besides(verdict)]
    details += _one_class_only(contents, verdict)
    details += _never_found(contents)
    if status != "finished":
        details.insert(0, f"{_ending(contents)} The numbers below are what was measured by then.")
    return Headline(sentence, tuple(part for part in details if part), tone)


def _who_gained(verdict: Verdict) -> tuple[str, Tone]:
    gained, lost = verdict.with_outcome("gained"), verdict.with_outcome("lost")
    total = len(verdict.compared)
    if all(math.isnan(site.margin) for site in verdict.compared):
        return _nobody_can_say(verdict)
    losses = _listed([_loss(site, verdict.metric) for site in lost])
    if total == 1:
        return _only_one(verdict)
    if len(gained) == total:
        return f"All {total} hospitals gained from training together.", "good"
    if not gained and not lost:
        return _none_differs(verdict)
    others = [_unclear(verdict), _untold(verdict)]
    if gained:
        parts = [f"{len(gained)} of {total} hospitals gained from training together", losses]
        return _joined([*parts, *others]), "neutral" if lost else "good"
    lead = f"No hospital clearly gained from training together: {losses}"
    return _joined([lead, *others]), "bad"


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part) + "."


def _nobody_can_say(verdict: Verdict) -> tuple[str, Tone]:
    return (
        "Whether a hospital gained from training together cannot be said: how far chance alone "
        f"moves its {metric_title(verdict.metric)} is not known."
    ), "neutral"


def _none_differs(verdict: Verdict) -> tuple[str, Tone]:
    total, untold = len(verdict.compared), verdict.with_outcome("cannot be told")
    outcome = verdict.mean.outcome
    if outcome in ("gained", "lost") and not verdict.mean.lone_patient:
        return (
            f"On average the {total} hospitals {outcome} from training together, but no single "
            "hospital's difference is larger than its sampling error."
        ), "good" if outcome == "gained" else "bad"
    if len(untold) == total:
        return (
            f"Whether any of the {total} hospitals gained or lost from training together cannot be "
            "told: every difference is within the sampling error, which is large."
        ), "neutral"
    if untold:
        lead = f"None of the {total} hospitals clearly gained or lost from training together"
        return _joined([lead, _unclear(verdict), _untold(verdict)]), "neutral"
    return (
        f"None of the {total} hospitals clearly gained or lost from training together: "
        "every difference is within the sampling error."
    ), "neutral"


def _only_one(verdict: Verdict) -> tuple[str, Tone]:
    (site,) = verdict.compared
    if site.outcome == "gained":
        return f"{site.site} gained from training together.", "good"
    if site.outcome == "lost":
        return f"Training together did not help: {_loss(site, verdict.metric)}.", "bad"
    if site.outcome == "cannot be told":
        return f"Whether {site.site} gained from training together cannot be told.", "neutral"
    return f"{site.site} shows no clear difference from training together.", "neutral"


def how_many_patients(site: SiteVerdict) -> str:
    """Return that a gain cannot be told with a site's patients, and how many it would take."""
    if site.outcome != "cannot be told":
        return ""
    count = f"with {site.patients} test {'patient' if site.lone_patient else 'patients'}"
    if not site.patients:
        count = "with these test patients"
    needed = site.needed
    if needed is None:
        return f"cannot be told {count}"
    return f"cannot be told {count}; it would take about {needed:,}"


def _loss(site: SiteVerdict, metric: str) -> str:
    by = f"{number(-site.gain, metric)} {metric_title(metric)}"
    return f"{site.site} lost {by}" if higher_is_better(metric) else f"{site.site} is worse by {by}"


def _unclear(verdict: Verdict) -> str:
    sites = verdict.with_outcome("no clear difference")
    if not sites:
        return ""
    if len(sites) > 3:
        return f"{len(sites)} show no clear difference"
    verb = "shows" if len(sites) == 1 else "show"
    return f"{_listed([site.site for site in sites])} {verb} no clear difference"


def _untold(verdict: Verdict) -> str:
    sites = verdict.with_outcome("cannot be told")
    if not sites:
        return ""
    names = _listed([site.site for site in sites]) if len(sites) <= 3 else f"{len(sites)} hospitals"
    return f"for {names} it cannot be told"


def _means(verdict: Verdict) -> str:
    mean, metric = verdict.mean, verdict.metric
    direction = "" if higher_is_better(metric) else ", lower is better"
    pooled = ""
    if not math.isnan(mean.pooled):
        pooled = f", compared with pooled {number(mean.pooled, metric)}"
    return (
        f"{sentence_title(metric)} on test patients (mean over hospitals{direction}): "
        f"federated {number(mean.federated, metric)}{pooled}"
        f"{' and' if pooled else ', compared with'} own data alone {number(mean.own, metric)}."
    )


def _mean_gain(verdict: Verdict) -> str:
    mean, metric = verdict.mean, verdict.metric
    if math.isnan(mean.margin):
        return f"The mean gain is {signed(mean.gain, metric)}; its sampling error is not known."
    lone = sum(site.lone_patient for site in verdict.compared)
    if lone:
        return (
            f"The mean gain is {signed(mean.gain, metric)}, without an interval: {lone} of the "
            f"{len(verdict.compared)} hospitals {'has' if lone == 1 else 'have'} one test patient, "
            "which says nothing of how patients differ."
        )
    word = {
        "gained": "which is more than chance explains",
        "lost": "a loss that is more than chance explains",
    }.get(judge_gain(mean.gain, mean.margin), "which chance alone could explain")
    return (
        f"The mean gain is {signed(mean.gain, metric)} ± {number(mean.margin, metric)} "
        f"(95% interval), {word}."
    )


def _too_few(verdict: Verdict) -> list[str]:
    """Say of each hospital where it cannot be told how many patients would do."""
    said = [(site.site, how_many_patients(site)) for site in verdict.compared]
    return [f"{site}: {words}." for site, words in said if words][:_MOST_LISTED]


def _besides(verdict: Verdict) -> list[str]:
    left_out = verdict.with_outcome("not compared")
    if not left_out:
        return []
    names = _listed([site.site for site in left_out])
    return [f"Not compared, for want of a value to compare: {names}."]


def _one_class_only(contents: RunContents, verdict: Verdict) -> list[str]:
    """Warn where every test patient has the same class: a constant answer is right there."""
    if not contents.exclusive_classes:
        return []
    sentences = []
    for site in verdict.compared:
        held = {
            row.class_name
            for row in contents.split
            if row.site == site.site and row.split == "test" and row.class_name and row.patients
        }
        if len(held) == 1:
            sentences.append(
                f"Read {site.site} with care: all its test patients are of class "
                f"{held.pop()}, so a model that always answers that is always right there."
            )
    return sentences


def _never_found(contents: RunContents) -> list[str]:
    """Say which classes the federated model finds in none of the test patients who have them."""
    missed = [
        row.class_name
        for row in contents.metrics
        if (row.model, row.round, row.site, row.split) == (FEDERATED, -1, ALL_SITES, "test")
        and row.metric in ("f1", "dice")
        and row.class_name
        and row.support > 0
        and row.value == 0
    ]
    if not missed:
        return []
    names = _listed([name for name in contents.classes if name in missed] or missed)
    it = "it" if len(missed) == 1 else "them"
    return [f"The federated model never finds {names}, though test patients have {it}."]


def _without_comparison(contents: RunContents, verdict: Verdict) -> Headline:
    tested = [site.federated for site in verdict.sites if not math.isnan(site.federated)]
    if contents.facts.status != "finished":
        details = (_last_validation(contents), "Whether a hospital gained cannot be said yet.")
        return Headline(_ending(contents), tuple(part for part in details if part), "neutral")
    sentence = "This run cannot say whether a hospital gained: it trained no comparison models."
    details = (
        (
            f"{sentence_title(verdict.metric)} of the federated model on test patients (mean over "
            f"{len(tested)} hospitals): {number(sum(tested) / len(tested), verdict.metric)}."
            if tested
            else _last_validation(contents)
        ),
        "With compare = true under [simulation], each hospital's own model and a pooled model "
        "are trained at the same budget.",
    )
    said = (*details, *_never_found(contents))
    return Headline(sentence, tuple(part for part in said if part), "neutral")


def _ending(contents: RunContents) -> str:
    planned = contents.rounds_planned
    rounds = f"round {contents.rounds_done}" + (f" of {planned}" if planned else "")
    again = f"Go on with: wardround simulate --resume {shlex.quote(str(contents.folder))}"
    return {
        "running": f"This run has not finished: the last number is from {rounds}.",
        "interrupted": f"This run was interrupted after {rounds}. {again}",
        "failed": f"This run failed after {rounds}. {again}",
        "finished": "This run is finished.",
    }[contents.facts.status]


def _last_validation(contents: RunContents) -> str:
    rows = [
        row
        for row in contents.metrics
        if (row.model, row.site, row.split, row.metric, row.class_name)
        == (FEDERATED, ALL_SITES, "validation", contents.metric, "")
        and not math.isnan(row.value)
    ]
    if not rows:
        return "Nothing was measured yet."
    last = max(rows, key=lambda row: row.round)
    return (
        f"The federated model's {metric_title(last.metric)} on validation patients was "
        f"{number(last.value, last.metric)} after round {last.round}."
    )


def explain_margin(verdict: Verdict) -> str:
    """Return how the report tells a difference from chance."""
    unknown = [site.site for site in verdict.compared if math.isnan(site.margin)]
    if unknown:
        return (
            f"How {metric_title(verdict.metric)} varies from patient to patient is not known for "
            f"{_listed(unknown)}, so no difference there is called clear."
        )
    return " ".join(part for part in (_where_from(verdict), _correction(verdict)) if part)


def _where_from(verdict: Verdict) -> str:
    if verdict.paired:
        swapped = (
            "."
            if verdict.metric in (*OF_NUMBERS, *OF_TIMES)
            else ", and is no narrower than what swapping the two models' answers at random makes."
        )
        return (
            "± is half an interval of the gain. Both models answered the same test patients, so "
            "the interval comes from how the patients' own differences scatter, all examinations "
            f"of a patient together{swapped}"
        )
    how = {
        "auroc": "Hanley and McNeil's formula",
        "accuracy": "the binomial formula",
        "balanced-accuracy": "the binomial formula, a class at a time",
        "f1": "the delta method, a class at a time",
    }.get(verdict.metric, "the spread over test cases, a patient's slices counting as one case")
    return (
        f"± is half an interval of the gain, from the number of test patients by {how}. Both "
        "models saw the same patients, which this leaves out of account: the true interval is "
        "usually narrower, and the words err on the side of caution."
    )


def _correction(verdict: Verdict) -> str:
    """Return how several comparisons are corrected."""
    count = len(verdict.compared)
    if count < 2:
        return "It is a 95% interval."
    return (
        f"{count} hospitals are {count} comparisons, and chance alone makes one in twenty look "
        "like a gain or a loss. So their intervals are wider than 95% (Holm's method: the "
        f"clearest one counts at {100 * (1 - 0.05 / count):.4g}%): the chance that any hospital is "
        "said to differ though it does not is at most 5%, for all together. The mean is one "
        "comparison, with a 95% interval."
    )


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
