"""What a sweep leaves behind.

======================= ==================================================================
``study.toml``          the study that is varied
``sweep.json``          :class:`SweepFacts`: what was asked for
``sites/``, ``*.csv``   the hospitals, the same for all trials (see the run folder)
``trials.journal``      every trial as Optuna keeps it, appended and never rewritten
``trials/0001/``        a trial's log
``sweep.csv``           :class:`Trial`: one line a trial
``best-study.toml``     the study with the best trial's values
``report.html``         the report
======================= ==================================================================
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.tables import write_cells
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.rounds.evaluation import is_better
from wardround.simulations.sweeps.search_space import Parameter, parse_parameters

_ROUNDS = "federation.rounds"

Verdict: TypeAlias = Literal["finished", "stopped early", "failed"]


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """What was asked for.

    Attributes:
        parameters: What varies, as on the command line.
        data_root: Where real data sets lie; None for the environment's.
        data: Name, licence and citation of the data set.
        own_rounds: Rounds of the study before ``--set`` shortened it for the search.
    """

    wardround: str
    command: tuple[str, ...]
    digest: str
    parameters: tuple[str, ...]
    trials: int
    metric: str
    seed: int
    started: str
    data_root: str | None = None
    data: dict[str, str] | None = None
    own_rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        number: From 1.
        changes: The varied keys of the study with their values.
        value: The metric on all sites' validation patients: of the kept model, or the best round
            of a trial that was stopped early; NaN if there is none.
        curve: (round, value) of each measured round.
        reason: Why it failed, or that it repeats another trial.
    """

    number: int
    status: Verdict
    changes: dict[str, Any]
    value: float
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    reason: str = ""

    @property
    def rounds(self) -> int:
        """Rounds whose model was measured."""
        return max((number for number, _ in self.curve), default=0)


@dataclass(frozen=True, slots=True)
class SweepContents:
    """A sweep, as far as it has come."""

    facts: SweepFacts
    study: Study
    trials: tuple[Trial, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What varies."""
        return parse_parameters(self.facts.parameters, self.study)

    @property
    def best(self) -> Trial | None:
        """The best trial that was trained to its end."""
        best: Trial | None = None
        for trial in self.trials:
            if trial.status != "finished" or math.isnan(trial.value):
                continue
            if best is None or is_better(trial.value, best.value, self.facts.metric):
                best = trial
        return best

    @property
    def lengthened(self) -> dict[str, int]:
        """What the best study has anew beside the best values: its own rounds, if fewer were run.

        A search is often made with fewer rounds than the study has, and its winner is not.
        """
        own = self.facts.own_rounds
        varied = any(parameter.key == _ROUNDS for parameter in self.parameters)
        if own is None or varied or own <= self.study.federation.rounds:
            return {}
        return {_ROUNDS: own}


def write_facts(folder: Path, facts: SweepFacts) -> None:
    """Write ``sweep.json``, replacing it at once."""
    text = json.dumps(asdict(facts), indent=2) + "\n"
    replace_file(folder / "sweep.json", text, BY_UMASK, durable=False)


def read_facts(folder: Path) -> SweepFacts:
    """Read ``sweep.json``.

    Raises:
        InputError: The folder holds no sweep, or one that this version cannot read.
    """
    try:
        content = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        lists = {name: tuple(content[name]) for name in ("command", "parameters")}
        return SweepFacts(**(content | lists))
    except OSError:
        msg = f"{folder} holds no sweep: give the folder that 'wardround sweep --out' wrote."
        raise InputError(msg) from None
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            f"{folder / 'sweep.json'} cannot be read ({type(error).__name__}): it was changed, or "
            "another version of wardround wrote it. Start a new sweep."
        )
        raise InputError(msg) from None


def write_results(folder: Path, contents: SweepContents) -> None:
    """Write the table of trials and the best study, each replaced at once."""
    _write_table(folder / "sweep.csv", contents.trials, [p.key for p in contents.parameters])
    if contents.best is not None:
        best = with_changes(contents.study, {**contents.lengthened, **contents.best.changes})
        replace_file(folder / "best-study.toml", best.to_toml(), BY_UMASK, durable=False)


def _write_table(path: Path, trials: Sequence[Trial], keys: Sequence[str]) -> None:
    header = ["trial", "status", "value", "rounds", "seconds", *keys, "reason"]
    write_cells(path, header, (_cells(trial, keys) for trial in trials))


def _cells(trial: Trial, keys: Sequence[str]) -> list[object]:
    facts = [trial.number, trial.status, trial.value, trial.rounds, f"{trial.seconds:.1f}"]
    drawn = [print_value(trial.changes.get(key)) for key in keys]
    return [*facts, *drawn, trial.reason]


def print_value(value: object) -> str:
    """Return a value of a study as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
