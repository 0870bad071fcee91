"""What an event of a simulation is called: for a progress bar, a notebook, a line of a log."""

from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
)

_TITLES = {
    "data": "reading and splitting the data",
    "federated": "training together",
    "pooled": "training on pooled data",
    "test": "testing every model on every site",
    "report": "writing the report",
    "server": "starting the server",
    "joining": "sites join over TLS",
    "sites": "starting the sites",
    "federation": "training together",
}


def title_of(stage: str) -> str:
    """Return how a person calls a stage."""
    run, slash, stage_of_run = stage.partition("/")
    if slash:  # of a series
        return f"{run}: {title_of(stage_of_run)}"
    site = stage.removeprefix("local-")
    return _TITLES.get(stage, f"{site} training alone")


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
