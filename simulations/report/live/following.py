"""How what is told of a simulation changes what is known of it."""

import math
from collections.abc import Sequence
from dataclasses import replace

from wardround.common.runtime.printable import printable
from wardround.server.checkpoints.history import RoundRecord
from wardround.simulations.report.live.state import (
    MOST_HAPPENINGS,
    TOGETHER,
    Happening,
    RoundLine,
    RunState,
    SiteLine,
    Stage,
)
from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    title_of,
)


def with_event(state: RunState, event: Event, time: float) -> RunState:
    """Return what is known once an event was told."""
    words, is_trouble = _words(event)
    happening = Happening(time, printable(words), is_trouble)
    told = replace(
        state,
        happenings=(*state.happenings, happening)[-MOST_HAPPENINGS:],
        happened=state.happened + 1,
        seen=time,
    )
    if isinstance(event, StageStarted):
        began = Stage(event.stage, event.rounds, event.done, time)
        others = tuple(one for one in told.stages if one.name != event.stage)
        return replace(told, stages=(*others, began))
    if isinstance(event, SiteFailed):
        return told
    return replace(told, stages=_followed(told.stages, event, time))


def _followed(
    stages: tuple[Stage, ...], event: StageFinished | RoundDone, time: float
) -> tuple[Stage, ...]:
    if all(one.name != event.stage for one in stages):
        stages = (*stages, Stage(event.stage))
    changed = []
    for one in stages:
        if one.name != event.stage:
            changed.append(one)
        elif isinstance(event, StageFinished):
            changed.append(replace(one, ended=time, done=one.rounds or one.done))
        else:
            facts = {"done": event.round, "rounds": event.rounds, "metric": event.metric}
            changed.append(replace(one, value=event.value, **facts))  # type: ignore[arg-type] # names of its own
    return tuple(changed)


def with_records(state: RunState, records: Sequence[tuple[RoundRecord, float | None]]) -> RunState:
    """Return what is known once rounds of the federation were written down.

    Args:
        records: Those that follow what is known, each with the time at which it was written.
    """
    values = {name: dict(line) for name, line in state.values.items()}
    losses = {name: dict(line) for name, line in state.losses.items()}
    rounds, sites = list(state.rounds), {one.site: one for one in state.sites}
    for record, written in records:
        measured = _measured(record, state.metric)
        for name, value in measured.items():
            values.setdefault(name, {})[record.measured_round] = value
        for part in record.sites:
            losses.setdefault(part.site, {})[record.round] = part.training_loss
        if record.sites:  # not the closing record, of the last model
            value = next((measured[name] for name in TOGETHER if name in measured), math.nan)
            rounds.append(_round(record, value, written))
            _take_part(sites, record)
    ordered = tuple(sites[site] for site in sorted(sites))
    told = replace(state, values=values, losses=losses)
    return replace(told, rounds=tuple(rounds), sites=ordered)


def _measured(record: RoundRecord, metric: str) -> dict[str, float]:
    return {
        measured.site: value.value
        for measured in record.measurements
        for value in measured.values
        if (value.metric, value.class_name) == (metric, "")
    }


def _round(record: RoundRecord, value: float, written: float | None) -> RoundLine:
    return RoundLine(
        round=record.round,
        value=value,
        seconds=record.seconds,
        sites=len(record.sites),
        updates=sum(one.updates for one in record.sites),
        bytes=sum(one.bytes_down + one.bytes_up for one in record.sites),
        left_out=tuple(dict.fromkeys(one.site for one in record.refusals)),
        ended=written,
    )


def _take_part(lines: dict[str, SiteLine], record: RoundRecord) -> None:
    for part in record.sites:
        line = lines.get(part.site, SiteLine(part.site))
        lines[part.site] = replace(
            line,
            rounds=line.rounds + 1,
            last=record.round,
            updates=line.updates + part.updates,
            loss=part.training_loss,
            seconds=part.seconds,
            bytes_down=line.bytes_down + part.bytes_down,
            bytes_up=line.bytes_up + part.bytes_up,
        )
    for refusal in record.refusals:
        line = lines.get(refusal.site, SiteLine(refusal.site))
        lines[refusal.site] = replace(line, left_out=(record.round, refusal.reason))


def _words(event: Event) -> tuple[str, bool]:
    if isinstance(event, StageStarted):
        begins = f", from round {event.done + 1} of {event.rounds}" if event.done else ""
        return f"began: {title_of(event.stage)}{begins}", False
    if isinstance(event, StageFinished):
        return f"done: {title_of(event.stage)}", False
    if isinstance(event, RoundDone):
        value = "" if math.isnan(event.value) else f", {event.metric} {event.value:.3f}"
        said = f"round {event.round} of {event.rounds}{value}, {event.seconds:.1f} s"
        return f"{title_of(event.stage)}: {said}", False
    return f"round {event.round}: {event.site} is left out: {event.reason}", True
