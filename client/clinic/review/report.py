"""What came of a queue: how much was read, whether readers agree, whether choosing beat the lot."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from wardround.client.clinic.review.outcome import Comparison, compare_yields
from wardround.client.clinic.review.queue import CHOSEN, DRAWN, Entry, Queue
from wardround.client.clinic.review.readers import PairOfReaders
from wardround.client.clinic.review.taking import is_same
from wardround.client.clinic.review.trial import Trial
from wardround.client.data.manifest.corrections import Correction


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of a queue.

    Attributes:
        cases: How many it has.
        read: Of these.
        checked: Of those read: the list or the model had said something of it.
        wrong: Of those checked: the reader said something else than the list, or where it said
            nothing something else than the model.
    """

    cases: int
    read: int
    checked: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a queue.

    Attributes:
        arms: By name.
        pairs: Of readers.
        trial: None where nobody asked for it.
        unchecked: Cases of which neither the list nor the model said anything to hold against.
    """

    queue: Queue
    arms: dict[str, Arm]
    pairs: Sequence[PairOfReaders]
    trial: Trial | None
    unchecked: int = 0

    @property
    def found(self) -> Comparison:
        """How many more of the chosen cases were wrong."""
        chosen, drawn = self.arms[CHOSEN], self.arms[DRAWN]
        return compare_yields((chosen.wrong, chosen.checked), (drawn.wrong, drawn.checked))

    @property
    def is_told(self) -> bool:
        """Whether something of each arm was read and held against; else nothing is compared."""
        return all(arm.checked for arm in self.arms.values())

    def lines(self) -> list[str]:
        """Return it in sentences."""
        said = []
        for name, arm in self.arms.items():
            said.append(f"{name}: {arm.read} of {arm.cases} read, {arm.wrong} of them were wrong.")
        if self.is_told:
            said.append(f"Cases that were wrong: {self.found.in_words(self.queue.by)}")
        else:
            said.append(
                "Whether choosing beat random cannot be said: of an arm nothing was read that "
                "could be held against anything."
            )
        if self.unchecked:
            cases = f"{self.unchecked} case" + ("s" if self.unchecked > 1 else "")
            said.append(f"{cases} read had neither a label nor a prediction to be held against.")
        if self.trial is not None:
            said.append(f"Trained on each arm: {self.trial.comparison.in_words(self.queue.by)}")
        said += [f"Readers: {pair.in_words()}" for pair in self.pairs]
        return said

    def content(self) -> dict[str, object]:
        """Return it as JSON takes it; NaN as None."""
        trial = None
        if self.trial is not None:
            trial = {**asdict(self.trial), "verdict": self.trial.comparison.verdict}
        return {
            "queue": self.queue.name,
            "by": self.queue.by,
            "arms": {name: asdict(arm) for name, arm in self.arms.items()},
            "verdict": self.found.verdict if self.is_told else None,
            "unchecked": self.unchecked,
            "trial": trial,
            "readers": [
                {"first": p.first, "second": p.second, p.measure: _number(p.value.value)}
                for p in self.pairs
            ],
            "lines": self.lines(),
        }


def make_report(
    queue: Queue,
    corrections: Sequence[Correction],
    pairs: Sequence[PairOfReaders],
    trial: Trial | None = None,
) -> Report:
    """Return what came of a queue.

    Args:
        corrections: All of the site: of a case the last one counts.
    """
    last = {one.case: one for one in corrections}
    arms = {name: _arm(queue.arm(name), last) for name in (CHOSEN, DRAWN)}
    unchecked = sum(one.case in last and not (one.own or one.predicted) for one in queue.entries)
    return Report(queue, arms, pairs, trial, unchecked)


def _arm(entries: Sequence[Entry], last: dict[str, Correction]) -> Arm:
    read = [(one, last[one.case]) for one in entries if one.case in last]
    held = [(one.own or one.predicted, said) for one, said in read]
    checked = [(before, said) for before, said in held if before]
    wrong = sum(not is_same(before, said) for before, said in checked)
    return Arm(len(entries), len(read), len(checked), wrong)


def _number(value: float) -> float | None:
    return value if value == value else None
