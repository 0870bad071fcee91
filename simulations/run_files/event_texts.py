"""What an event of a simulation is called: for a progress bar, a notebook, a line of a log."""

from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    title_of,
)


def line_of(event: Event) -> str:
    """Return what is worth a line: each stage, each round, who is left out; else ""."""
    if isinstance(event, StageFinished):
        return ""
    if isinstance(event, StageStarted):
        begins = f", from round {event.done + 1} of {event.rounds}" if event.done else ""
        return f"{title_of(event.stage)}{begins}"
    if isinstance(event, SiteFailed):
        return f"round {event.round}: {event.site} is left out: {event.reason}"
    return f"{round_line(event)}, {event.seconds:.1f} s"


def round_line(event: RoundDone) -> str:
    """Return which round is done, and how good the model was that it started from."""
    value = "" if event.value != event.value else f", {event.metric} {event.value:.3f}"
    return f"{title_of(event.stage)}: round {event.round} of {event.rounds}{value}"
