"""What each site is doing, in the words of the runs that it is for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wardround.server.operators.messages import RunRecord, RunSummary, SiteSummary

_TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Doing:
    """What a site is doing.

    Attributes:
        word: ``training``, ``cut off``, ``late``, ``left out``, ``waited for``, ``idle`` or
            ``away``.
        why: The rest of the sentence; "" where there is nothing to add.
    """

    word: str
    why: str = ""


def doing(site: SiteSummary, shown: Iterable[tuple[RunSummary, RunRecord | None]]) -> Doing:
    """Return what a site is doing.

    Args:
        shown: The runs under way, with what is known of them.
    """
    found = [one for summary, record in shown for one in _in_run(site.site, summary, record)]
    ranks = ("late", _TRAINING, "waited for", "left out")
    found.sort(key=lambda one: ranks.index(one.word))
    if found and found[0].word == _TRAINING and site.presence != "connected":
        return Doing("cut off", f"{found[0].why}: no answer of it can come now")
    return found[0] if found else Doing("idle" if site.connected else "away")


def _in_run(site: str, run: RunSummary, record: RunRecord | None) -> Iterator[Doing]:
    if f" waits for {site}: " in run.message:
        yield Doing("late", f"{run.run}: {run.message}")
    elif run.state == "waiting for sites":
        reason = _waited_for(site, run.message)
        if reason:
            yield Doing("waited for", f"{run.run}: it {reason}")
    elif run.state == "running" and record is not None:
        yield from _in_round(site, run, record)


def _in_round(site: str, run: RunSummary, record: RunRecord) -> Iterator[Doing]:
    if site in record.details.sites:
        number = f"round {run.round + 1} of {run.rounds}" if run.round < run.rounds else "the end"
        yield Doing(_TRAINING, f"{run.run}, {number}")
        return
    rounds = [report for report in record.details.history if report.sites]
    for refusal in rounds[-1].refusals if rounds else ():
        if refusal.site == site and refusal.asked == _TRAINING:
            yield Doing("left out", f"{run.run}, round {rounds[-1].round}: {refusal.reason}")


def _waited_for(site: str, message: str) -> str:
    """Return why a run waits for a site, of a message that names several with their reasons."""
    _, _, reasons = message.partition("(")
    for part in reasons.rstrip(")").split("; "):
        if part.startswith(f"{site} "):
            return part.removeprefix(f"{site} ")
    return ""
