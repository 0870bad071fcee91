"""Survival: the time until an event, of which some patients are only followed for a while."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.classification import CountsAtTheEnd
from wardround.client.tasks.task import Forward, Label, UnusableLabelError
from wardround.client.tasks.words import number_in
from wardround.common.metrics.noised.encoding import encode_follow_up
from wardround.common.metrics.survival import SurvivalSums, count_survival, time_edges
from wardround.common.metrics.task_sums import Sums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

_EVENTS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_LARGEST_TIME = 1e6  # of any unit; float32 keeps it to a tenth


class FollowUps:
    """A time and whether it is that of the event: ``512;1``, or two columns time and event."""

    def read(self, text: str, study: Study) -> Label:
        """Return time and event, 0 or 1.

        Args:
            text: Both, apart by ``;`` or ``|``; of two columns they are joined so.
            study: Says the unit.

        Raises:
            UnusableLabelError: One is missing or is none.
        """
        parts = [part.strip() for part in text.replace("|", ";").split(";")]
        if len(parts) != 2:
            fact = "the column label is not a time and an event"
            raise UnusableLabelError(fact, "write both, as 512;1, or use two columns time, event")
        return (_time_in(parts[0], study), _event_in(parts[1]))

    def stack(self, labels: Sequence[Label], study: Study) -> Tensor:
        """Return ``(N, 2)`` float32: time in the study's unit, and event 0 or 1."""
        return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), 2)


def _time_in(text: str, study: Study) -> float:
    time = number_in(text)
    unit = f" in {study.outcome.unit}" if study.outcome.unit else ""
    if time is None:
        fact = "the time is not a number" if text else "the time is empty"
        raise UnusableLabelError(fact, f"write the time{unit} to the event or to the last look")
    if time < 0:
        fact = "the time is negative"
        remedy = f"count the time{unit} from the image or the entry into the study on"
        raise UnusableLabelError(fact, remedy)
    if time > _LARGEST_TIME:
        fact = f"the time is above {_LARGEST_TIME:g}"
        raise UnusableLabelError(fact, "mend it, or count it in a larger unit")
    return time


def _event_in(text: str) -> float:
    number = number_in(text)
    event = _EVENTS.get(text.casefold() if number is None else f"{number:g}")
    if event is None:
        fact = "the event is neither 0 nor 1" if text else "the event is empty"
        remedy = "write 1 where the event happened, 0 where the patient was only followed so far"
        raise UnusableLabelError(fact, remedy)
    return event


class Survival:
    """The time until an event."""

    labels = FollowUps()

    def cases_of_classes(self, targets: Tensor, study: Study) -> None:
        """Return None: examinations have no classes."""
        return

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return ``(B, K)``: of each interval what its hazard comes from; ``(B, 1)`` for "cox"."""
        return forward(*batch.inputs)

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the expected time without event up to the horizon, and 1, ``(B, 2)``.

        For "cox" the negative log hazard ratio stands for the time: only its order means anything.
        """
        time = -outputs[:, 0] if study.loss == "cox" else _expected_time(outputs, study)
        return torch.stack([time, torch.ones_like(time)], dim=1).to(outputs.dtype)

    def answers(self, outputs: Tensor, study: Study) -> tuple[tuple[str, ...], Tensor]:
        """Return the risk and the survival at each time; for "cox" the log hazard ratio.

        The risk is the share of the time up to the horizon that is expected to be lost.
        """
        if study.loss == "cox":
            return ("log hazard ratio",), outputs.double()
        outcome = study.outcome
        names = (f"survival at {outcome.with_unit(time)}" for time in outcome.times)
        risk = 1 - _expected_time(outputs, study) / outcome.times[-1]
        return ("risk", *names), torch.cat([risk[:, None], _survival(outputs)], dim=1)

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return in which bin of time and of risk each examination is, ``(B, D - 2)``."""
        times, events = _follow_up(targets)
        return encode_follow_up(times, events, risks_of(outputs, study), study)

    def counter(self, study: Study, surfaces: bool) -> CountsAtTheEnd:
        """Return a counter of a new evaluation; there are no surfaces."""
        return CountsAtTheEnd(lambda found, truth: _count(found, truth, study))


def _count(outputs: Tensor, targets: Tensor, study: Study) -> SurvivalSums:
    times, events = _follow_up(targets)
    risks, expected = risks_of(outputs, study), hazards_up_to(outputs, times, study)
    alive = alive_at(outputs, study)
    return count_survival(times, events, risks, expected, time_edges(study), alive)


def alive_at(outputs: Tensor, study: Study) -> Sums | None:
    """Return ``(N, T)``: the probability of no event up to each of :func:`time_edges`.

    None for "cox", which gives relative hazards only.
    """
    if study.loss == "cox":
        return None
    hazards = [hazards_up_to(outputs, np.array([edge]), study) for edge in time_edges(study)]
    return np.asarray(np.exp(-np.stack(hazards, axis=1)))


def risks_of(outputs: Tensor, study: Study) -> Sums:
    """Return ``(N,)`` in [0, 1]: the share of the time up to the horizon expected to be lost.

    It is 1 less the restricted mean survival time over the horizon. The probability of an event up
    to the horizon orders patients by the last intervals, in which few are still followed; where all
    are, it ranks as well (``benchmarks/support/survival.py``, on validation patients). For "cox"
    the risk is the sigmoid of the log hazard ratio: only its order means anything.
    """
    if study.loss == "cox":
        risks = torch.sigmoid(outputs[:, 0].detach().double())
    else:
        risks = (1 - _expected_time(outputs, study) / study.outcome.times[-1]).clamp(0, 1)
    found: Sums = risks.cpu().numpy()
    return found


def hazards_up_to(outputs: Tensor, times: Sums, study: Study) -> Sums:
    """Return ``(N,)`` cumulative hazards up to each time or the horizon; 0 for "cox"."""
    if study.loss == "cox":
        return np.zeros(len(times))
    edges = np.array([0.0, *study.outcome.times])
    shares = np.clip((times[:, None] - edges[:-1]) / np.diff(edges), 0.0, 1.0)
    found: Sums = (_hazards(outputs).cpu().numpy() * shares).sum(axis=1)
    return found


def _follow_up(targets: Tensor) -> tuple[Sums, NDArray[np.bool_]]:
    numbers = targets.detach().cpu().double().numpy()
    return numbers[:, 0], numbers[:, 1] > 0.5


def _hazards(outputs: Tensor) -> Tensor:
    """Return ``(N, K)`` float64: the hazard of each interval times its length."""
    return torch.nn.functional.softplus(outputs.detach().double())


def _survival(outputs: Tensor) -> Tensor:
    """Return ``(N, K)`` float64: the probability of no event up to each of the study's times."""
    return torch.exp(-_hazards(outputs).cumsum(1))


def _expected_time(outputs: Tensor, study: Study) -> Tensor:
    """Return ``(N,)`` float64: the mean time without event up to the horizon.

    Within an interval of length L and hazard h / L it is ``L (1 - exp(-h)) / h`` of those who reach
    it.
    """
    edges = torch.tensor([0.0, *study.outcome.times], dtype=torch.float64, device=outputs.device)
    hazards, alive = _hazards(outputs), _survival(outputs)
    reached = torch.cat([torch.ones_like(alive[:, :1]), alive[:, :-1]], dim=1)
    within = torch.where(hazards > 1e-9, -torch.expm1(-hazards) / hazards.clamp(min=1e-9), 1.0)
    return (edges.diff() * reached * within).sum(1)
