"""Random schedules of several faults in one run, from fixed seeds; the model must not differ."""

import random
import time
from dataclasses import dataclass

from tests.faults.proxy import BOTH, TO_SITE
from tests.faults.stage import PATIENCE_SECONDS, ROUNDS, SITES, Stage, wait_until
from tests.faults.table.fault import AGGREGATES, COMMITS, FOLDS, SENDS, SENDS_ANSWER, TRAINS

from wardround.common.errors import RunError
from wardround.server.operators.messages import RunDetails
from wardround.simulations.local_federation.processes import SERVER_FOLDER

_FROZEN_SECONDS, _LOST_SECONDS = 5.0, 4.0
_SERVER_POINTS = {
    SENDS: ROUNDS,
    FOLDS: ROUNDS * len(SITES),
    AGGREGATES: ROUNDS,
    COMMITS: 2 * ROUNDS,
}
_SERVER = "common.privacy.secure_aggregation.server"
_MASKED_POINTS = {
    SENDS: ROUNDS,
    AGGREGATES: ROUNDS,
    COMMITS: 2 * ROUNDS,
    **{
        f"{_SERVER}:ServerRound.{name}": ROUNDS
        for name in ("close_roster", "close_shares", "close_masked", "close_agreements", "unmask")
    },
}
ANSWERS_STAGE = "client.egress.masking:MaskedSite.answer"


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a schedule.

    Attributes:
        do: What is done: of the plan's actions, or ``lose`` for a network.
        after_seconds: When, for a network.
    """

    do: str
    point: str = ""
    call: int = 0
    who: str = ""
    after_seconds: float = 0.0

    def __str__(self) -> str:
        """Say it in a line."""
        place = f"{self.point.rpartition(':')[2]} {self.call}" if self.point else self.who
        return f"{self.do} at {place} {self.who}".strip()


def draw_schedule(seed: int, masked: bool = False) -> tuple[Planned, ...]:
    """Return one to three faults; at most one of each kind, so that none adds up to a refusal.

    Args:
        masked: Whether the sites mask, so that a round has stages in which it can be hit.
    """
    generator = random.Random(f"faults {seed}")
    points = _MASKED_POINTS if masked else _SERVER_POINTS
    point = generator.choice(list(points))
    call = generator.randint(1, points[point])
    site, turn = generator.choice(SITES), generator.randint(1, ROUNDS)
    whole = generator.choice(list(points))
    kinds = [
        Planned("die", point, call),
        Planned("die with parent", whole, generator.randint(1, points[whole])),
        Planned("die", TRAINS, turn, site),
        Planned("die with parent", TRAINS, turn, generator.choice(SITES)),
        Planned("die", SENDS_ANSWER, generator.randint(1, ROUNDS), generator.choice(SITES)),
        Planned("freeze with parent", TRAINS, turn, generator.choice(SITES)),
        Planned(
            generator.choice((BOTH, TO_SITE)), who=site, after_seconds=generator.uniform(4, 12)
        ),
    ]
    if masked:
        stage = generator.randint(1, 4 * ROUNDS)
        kinds.append(Planned("die with parent", ANSWERS_STAGE, stage, generator.choice(SITES)))
    return tuple(generator.sample(kinds, generator.randint(1, 3)))


def run_schedule(
    stage: Stage, schedule: tuple[Planned, ...], masked_seed: int | None = None
) -> RunDetails:
    """Run the plain study under a schedule, and start again whatever dies.

    Args:
        masked_seed: Of a study whose sites mask their updates, in its place.

    Raises:
        AssertionError: It hangs, or ends in another model.
    """
    study, expected = stage.plain, stage.expected
    if masked_seed is not None:
        study, expected = stage.approve_masked(masked_seed)
    networks = [one for one in schedule if not one.point]
    for number, one in enumerate(schedule):
        if one.point:
            stage.arm(one.do, one.point, one.call, one.who, name=f"a{number}")
    run, began, thawed = stage.submit(study), time.monotonic(), False
    while not _is_over(stage, run):
        assert time.monotonic() - began < PATIENCE_SECONDS, "hangs"
        for one in networks:
            _disturb(stage, one, time.monotonic() - began)
        _revive(stage)
        thawed = thawed or _thaw(stage, schedule)
        time.sleep(0.2)
    for one in networks:
        stage.proxies[one.who].mend()
    return stage.finish_as_simulated(run, expected)


def _is_over(stage: Stage, run: str) -> bool:
    server = stage.federation.child(SERVER_FOLDER)
    if server.exit_code is not None:
        return False
    try:
        with stage.line() as line:
            return line.show(run).summary.is_over
    except RunError:
        # The schedule may kill the server over this very question; one that lives has to answer.
        wait_until(lambda: server.exit_code is not None)
        return False


def _revive(stage: Stage) -> None:
    if stage.federation.child(SERVER_FOLDER).exit_code is not None:
        stage.restart_server()
    for name in SITES:
        if stage.federation.child(name).exit_code is not None:
            stage.start_site(name)


def _thaw(stage: Stage, schedule: tuple[Planned, ...]) -> bool:
    """Let go on what is frozen, once it has been for a while; True if that was done."""
    for number, one in enumerate(schedule):
        reached = stage.plans / f"a{number}.reached"
        if one.do.startswith("freeze") and reached.exists():
            time.sleep(_FROZEN_SECONDS)
            stage.thaw()
            return True
    return False


def _disturb(stage: Stage, one: Planned, seconds: float) -> None:
    proxy = stage.proxies[one.who]
    if one.after_seconds <= seconds < one.after_seconds + _LOST_SECONDS:
        proxy.lose(one.do)
    elif seconds >= one.after_seconds + _LOST_SECONDS:
        proxy.mend()
