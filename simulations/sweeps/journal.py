"""The trials of a sweep in Optuna's journal: drawing values, keeping results.

Tree-structured Parzen estimator (Bergstra et al., 2011, "Algorithms for hyper-parameter
optimization") after a few random trials, and Optuna's median rule, which stops a trial whose best
round so far is worse than the median of the others at that round. Where only lists of values vary,
no combination is tried twice while another is untried.
"""

import math
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.common.runtime.seeds import derive_seed
from wardround.simulations.sweeps.folder import Trial, Verdict
from wardround.simulations.sweeps.search_space import Choice, Parameter, Range, chosen_value

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 5  # before the estimator draws, and before the median means anything
_SECONDS, _REASON = "seconds", "reason"


class Journal:
    """The trials of one sweep, on disk after every step."""

    def __init__(
        self,
        path: Path,
        parameters: Sequence[Parameter],
        seed: int,
        higher_is_better: bool,
    ) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._parameters = tuple(parameters)
        self._seed = seed
        self._higher_is_better = higher_is_better
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))),
            study_name="sweep",
            direction="maximize" if higher_is_better else "minimize",
            pruner=optuna.pruners.MedianPruner(RANDOM_TRIALS, n_warmup_steps=1),
            load_if_exists=True,
        )

    def forget_unfinished(self) -> None:
        """Give up trials that were at work when an earlier process died."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def trials(self) -> tuple[Trial, ...]:
        """Return the trials that have come to an end, in order."""
        return tuple(self._as_trial(n, t) for n, t in enumerate(self._counted(), start=1))

    def draw(self) -> "Draw":
        """Draw the values of the next trial.

        The seed depends on the trials before, not on this process: a resumed sweep draws the same.
        """
        import optuna

        counted = self._counted()
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM_TRIALS,
            seed=derive_seed("sweep", self._seed, len(counted)) % 2**32,
        )
        distributions = {p.key: _distribution(p) for p in self._parameters}
        trial = self._study.ask(distributions)
        twin = next((t for t in counted if t.params == trial.params), None)
        if twin is not None and (untried := self._untried(counted)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # never begun
            self._study.enqueue_trial(self._chosen(untried, len(counted)))
            trial, twin = self._study.ask(distributions), None
        number = len(counted) + 1
        repeats = None if twin is None else (counted.index(twin) + 1, twin)
        return Draw(self._study, trial, number, self._changes(trial.params), repeats)

    def _untried(self, counted: "Sequence[optuna.trial.FrozenTrial]") -> list[dict[str, str]]:
        """Return the combinations that are left of a search over lists, none of another one."""
        choices = [p for p in self._parameters if isinstance(p, Choice)]
        if len(choices) < len(self._parameters):
            return []
        keys = [choice.key for choice in choices]
        every = (dict(zip(keys, row, strict=True)) for row in product(*(c.values for c in choices)))
        tried = [trial.params for trial in counted]
        return [combination for combination in every if combination not in tried]

    def _chosen(self, untried: Sequence[dict[str, str]], number: int) -> dict[str, str]:
        return random.Random(derive_seed("sweep", self._seed, number)).choice(untried)

    def _counted(self) -> list["optuna.trial.FrozenTrial"]:
        trials = self._study.get_trials(deepcopy=False)
        # A trial that failed for no reason was interrupted: it is drawn and trained again.
        return [t for t in trials if t.state.is_finished() and not _is_interrupted(t)]

    def _changes(self, drawn: dict[str, Any]) -> dict[str, Any]:
        return {p.key: chosen_value(p, drawn[p.key]) for p in self._parameters}

    def _as_trial(self, number: int, trial: "optuna.trial.FrozenTrial") -> Trial:
        verdicts: dict[str, Verdict] = {"COMPLETE": "finished", "PRUNED": "stopped early"}
        status = verdicts.get(trial.state.name, "failed")
        curve = tuple(sorted(trial.intermediate_values.items()))
        values = [value for _, value in curve]
        value = trial.value if status == "finished" else None
        if status == "stopped early" and values:
            value = max(values) if self._higher_is_better else min(values)
        return Trial(
            number=number,
            status=status,
            changes=self._changes(trial.params),
            value=math.nan if value is None else value,
            seconds=float(trial.user_attrs.get(_SECONDS, 0.0)),
            curve=curve,
            reason=str(trial.user_attrs.get(_REASON, "")),
        )


class Draw:
    """A trial at work."""

    def __init__(
        self,
        study: "optuna.Study",
        trial: "optuna.Trial",
        number: int,
        changes: dict[str, Any],
        repeats: "tuple[int, optuna.trial.FrozenTrial] | None",
    ) -> None:
        self._study = study
        self._trial = trial
        self.number = number
        self.changes = changes
        self.repeats = repeats

    def report(self, round_number: int, value: float) -> None:
        """Keep the value of a round."""
        self._trial.report(value, round_number)

    def is_hopeless(self) -> bool:
        """Return whether the trial is worse than the median of the others at this round."""
        return self._trial.should_prune()

    def finish(self, value: float, seconds: float) -> None:
        """Keep the score of a trial that was trained to its end."""
        self._trial.set_user_attr(_SECONDS, seconds)
        self._study.tell(self._trial, value)

    def stop(self, seconds: float) -> None:
        """Keep a trial that was stopped early."""
        from optuna.trial import TrialState

        self._trial.set_user_attr(_SECONDS, seconds)
        self._study.tell(self._trial, state=TrialState.PRUNED)

    def fail(self, reason: str, seconds: float = 0.0) -> None:
        """Keep why a trial failed."""
        from optuna.trial import TrialState

        self._trial.set_user_attr(_SECONDS, seconds)
        self._trial.set_user_attr(_REASON, reason or "no reason was given.")
        self._study.tell(self._trial, state=TrialState.FAIL)

    def forget(self) -> None:
        """Count the trial as never begun: the next one draws its values again."""
        from optuna.trial import TrialState

        self._study.tell(self._trial, state=TrialState.FAIL)

    def repeat(self) -> None:
        """Take over the result of the earlier trial with the same values: it would be the same."""
        if self.repeats is None:
            return
        number, twin = self.repeats
        for round_number, value in twin.intermediate_values.items():
            self._trial.report(value, round_number)
        self._trial.set_user_attr(_REASON, f"the same values as trial {number}")
        self._study.tell(self._trial, twin.value if _is_complete(twin) else None, twin.state)


def _is_interrupted(trial: "optuna.trial.FrozenTrial") -> bool:
    return trial.state.name == "FAIL" and _REASON not in trial.user_attrs


def _is_complete(trial: "optuna.trial.FrozenTrial") -> bool:
    return trial.state.name == "COMPLETE"


def _distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not isinstance(parameter, Range):
        return CategoricalDistribution(parameter.values)
    if parameter.is_whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.is_log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.is_log)
