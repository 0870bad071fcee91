"""What a run folder says of a simulation that runs, looked at again and again; nothing is written.

Only what was added since the last look is read: of the log the events, of the federation's history
the rounds. So a page costs the simulation nothing but a part of a core, now and then.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.files.tables import read_table
from wardround.common.runtime.printable import printable
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, record_of
from wardround.simulations.report.live.following import with_event, with_records
from wardround.simulations.report.live.growing import GrowingFile
from wardround.simulations.report.live.outcome import REPORT, outcome_of, outcome_of_series
from wardround.simulations.report.live.privacy import PrivacySpent
from wardround.simulations.report.live.state import (
    Outcome,
    RunState,
    Series,
    Standing,
)
from wardround.simulations.run_files.events import LOG_FILE, read_event
from wardround.simulations.run_files.folder import FEDERATED, SplitRow, read_facts
from wardround.simulations.run_files.series import is_series, read_series

_HISTORY = Path("checkpoints") / FEDERATED / "history.jsonl"


class RunReader:
    """Looks at one run folder, which may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = GrowingFile(folder / LOG_FILE)
        self._history = GrowingFile(folder / _HISTORY)
        self._study: Study | None = None
        self._privacy: PrivacySpent | None = None
        self._state = RunState()

    def look(self) -> RunState:
        """Return what is known now."""
        state = self._with_study(self._state)
        state = self._with_events(state)
        state = self._with_rounds(state)
        standing = self._standing(state)
        if standing != state.standing or self._privacy is not None:
            state = replace(state, standing=standing, privacy=self._spent(state))
        if standing == "finished" and state.outcome is None and self._has_report(state):
            state = replace(state, outcome=outcome_of(self._folder))
        self._state = state
        return state

    def _with_study(self, state: RunState) -> RunState:
        """Read the study once it is there, and the sites with it."""
        if self._study is None:
            try:
                study = load_study(self._folder / "study.toml", planned=False)
            except WardroundError:
                return state
            self._study = study
            if study.privacy.mode != "none":
                self._privacy = PrivacySpent(study)
            rounds = study.federation.rounds
            state = replace(state, study=study.name, metric=study.metric, rounds_planned=rounds)
        if not state.known_sites:
            with suppress(OSError, ValueError, TypeError, KeyError):
                rows = read_table(self._folder / "split.csv", SplitRow)
                state = replace(state, known_sites=tuple(dict.fromkeys(row.site for row in rows)))
        return state

    def _with_events(self, state: RunState) -> RunState:
        lines, is_anew = self._log.news()
        if is_anew:
            state = replace(state, stages=(), happenings=(), happened=0, seen=0.0)
        for line in lines:
            event = read_event(line) if isinstance(line, dict) else None
            if event is not None:
                state = with_event(state, event, _time_of(line))
        return state

    def _with_rounds(self, state: RunState) -> RunState:
        lines, is_anew = self._history.news()
        if is_anew:  # a resumed run cuts off the rounds that were not committed
            state = replace(state, rounds=(), sites=(), values={}, losses={})
        records: list[tuple[RoundRecord, float | None]] = []
        for line in lines:
            with suppress(KeyError, TypeError, AttributeError):  # somebody changed the file
                written = line.get("written_at")
                records.append((record_of(line), written if isinstance(written, float) else None))
        return with_records(state, records) if records else state

    def _standing(self, state: RunState) -> Standing:
        if not (self._folder / "run.json").exists():
            return "running" if state.stages else "beginning"
        try:
            return read_facts(self._folder).status
        except WardroundError:  # it is being replaced, or is of another version
            return state.standing

    def _has_report(self, state: RunState) -> bool:
        is_written = all(one.name != "report" for one in state.running)
        return is_written and (self._folder / REPORT).is_file()

    def _spent(self, state: RunState) -> tuple[str, ...]:
        if self._privacy is None:
            return ()
        return self._privacy.words({one.site: one.rounds for one in state.sites})


class Reader:
    """Looks at a folder of a run or of a series, whichever it becomes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, RunReader] = {}
        self._outcome: Outcome | None = None

    def look(self, has_ended: bool = False) -> RunState | Series:
        """Return what is known now.

        Args:
            has_ended: Whether the process that simulates has ended.
        """
        if is_series(self._folder):
            return self._look_at_series(has_ended)
        state = self._runs.setdefault("", RunReader(self._folder)).look()
        if has_ended and not (self._folder / "run.json").exists():
            return replace(state, standing="nothing")
        return state

    def _look_at_series(self, has_ended: bool) -> Series:
        facts = None
        with suppress(WardroundError):
            facts = read_series(self._folder)
        names = {path.name for path in (self._folder / "runs").glob("*") if path.is_dir()}
        names |= set() if facts is None else {part.name for part in facts.together()}
        states = {
            name: self._runs.setdefault(name, RunReader(self._folder / "runs" / name)).look()
            for name in sorted(names, key=lambda name: ("without" in name, name))
        }
        standing: Standing = "running"
        if facts is not None and facts.finished is not None:
            standing = "finished"
            self._outcome = self._outcome or outcome_of_series(self._folder)
        elif has_ended or any(state.standing == "failed" for state in states.values()):
            standing = "interrupted" if has_ended else "failed"
        runs = tuple((name, _not_begun(state)) for name, state in states.items())
        study = next((state.study for state in states.values() if state.study), "")
        return Series(study, standing, runs, _shown(states), self._outcome)


def _not_begun(state: RunState) -> RunState:
    return state if state.stages else replace(state, standing="not begun")


def _shown(states: Mapping[str, RunState]) -> str:
    """Return the name of the run that something was last heard of."""
    running = [name for name, state in states.items() if state.standing == "running"]
    among = running or list(states)
    return max(among, key=lambda name: states[name].seen, default="")


def _time_of(line: Mapping[str, object]) -> float:
    try:
        return datetime.fromisoformat(printable(str(line.get("time", "")), 60)).timestamp()
    except ValueError:
        return 0.0
