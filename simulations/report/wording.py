"""The verdict in words: sentences computed from numbers, flattering or not."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wardround.common.study.registry import METRICS
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.verdict import (
    SiteVerdict,
    Verdict,
    higher_is_better,
    judge_gain,
)
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED

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
    return title[0].upper() + title[1:]


def number(value: float, metric: str = "") -> str:
    """Return a value as printed: three decimals, millimetres two, an en dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:.{2 if metric == 'hd95' else 3}f}".replace("-", "−")


def signed(value: float, metric: str = "") -> str:
    """Return a difference with its sign."""
    text = number(value, metric)
    return text if text.startswith(("–", "−")) else f"+{text}"


def compose_headline(contents: RunContents, verdict: Verdict) -> Headline:
    """Return the headline of a run, whatever became of it."""
    status = contents.facts.status
    if not verdict.compared:
        return _without_comparison(contents, verdict)
    sentence, tone = _who_gained(verdict)
    details = [_means(verdict), _mean_gain(verdict), *_besides(verdict)]
    details += _one_class_only(contents, verdict)
    details += _never_found(contents)
    if status != "finished":
        details.insert(0, f"{_ending(contents)} The numbers below are what was measured by then.")
    return Headline(sentence, tuple(part for part in details if part), tone)


def _who_gained(verdict: Verdict) -> tuple[str, Tone]:
    gained, lost = verdict.with_outcome("gained"), verdict.with_outcome("lost")
    unclear, total = verdict.with_outcome("no clear difference"), len(verdict.compared)
    if all(math.isnan(site.margin) for site in verdict.compared):
        return _nobody_can_say(verdict)
    losses = _listed([_loss(site, verdict.metric) for site in lost])
    if total == 1:
        return _only_one(verdict)
    if len(gained) == total:
        return f"All {total} hospitals gained from training together.", "good"
    if len(unclear) == total:
        return _all_unclear(verdict)
    if gained:
        parts = [f"{len(gained)} of {total} hospitals gained from training together", losses]
        parts.append(_unclear(unclear))
        return "; ".join(part for part in parts if part) + ".", "neutral" if lost else "good"
    parts = [f"No hospital clearly gained from training together: {losses}", _unclear(unclear)]
    return "; ".join(part for part in parts if part) + ".", "bad"


def _nobody_can_say(verdict: Verdict) -> tuple[str, Tone]:
    return (
        "Whether a hospital gained from training together cannot be said: how far chance alone "
        f"moves its {metric_title(verdict.metric)} is not known."
    ), "neutral"


def _all_unclear(verdict: Verdict) -> tuple[str, Tone]:
    total = len(verdict.compared)
    outcome = verdict.mean.outcome
    if outcome in ("gained", "lost"):
        return (
            f"On average the {total} hospitals {outcome} from training together, but no single "
            "hospital's difference is larger than its sampling error."
        ), "good" if outcome == "gained" else "bad"
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
    return f"{site.site} shows no clear difference from training together.", "neutral"


def _loss(site: SiteVerdict, metric: str) -> str:
    by = f"{number(-site.gain, metric)} {metric_title(metric)}"
    return f"{site.site} lost {by}" if higher_is_better(metric) else f"{site.site} is worse by {by}"


def _unclear(sites: Sequence[SiteVerdict]) -> str:
    if not sites:
        return ""
    if len(sites) > 3:
        return f"{len(sites)} show no clear difference"
    verb = "shows" if len(sites) == 1 else "show"
    return f"{_listed([site.site for site in sites])} {verb} no clear difference"


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
    if verdict.paired:
        return (
            "± is the largest difference that chance makes in 95 of 100 cases between two models "
            "that are equally good: each test patient's answers by the one and by the other are "
            "swapped at random, all examinations of a patient together."
        )
    how = {
        "auroc": "Hanley and McNeil's formula",
        "accuracy": "the binomial formula",
        "balanced-accuracy": "the binomial formula, a class at a time",
        "f1": "the delta method, a class at a time",
    }.get(verdict.metric)
    if how is None:
        return (
            "± is half a 95% interval of the gain, from the spread over test cases; a patient with "
            "several slices counts as one case. Both models saw the same patients, which this "
            "leaves out of account: the true interval is usually narrower."
        )
    return (
        "± is half a 95% interval of the gain, from the number of test patients by "
        f"{how}. Both models saw the same patients, which this leaves out of account: "
        "the true interval is usually narrower, and the words err on the side of caution."
    )


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
