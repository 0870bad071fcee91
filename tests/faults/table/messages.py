"""Faults: answers that are not what they should be, from a site that is hostile or broken."""

from collections.abc import Callable

from tests.faults.memory import PeakMemory
from tests.faults.stage import ROUNDS, SITES, Stage, refusals_of
from tests.faults.table.fault import (
    ADDRESSES,
    ANSWERS,
    FIRST,
    REFUSED,
    SECOND,
    SENDS,
    SENDS_ANSWER,
    THIRD,
    TRAINS,
    Fault,
)

from wardround.client.policy.policy import POLICY_FILE
from wardround.server.operators.messages import RunDetails

_SITE_LIMIT_MEGABYTES, _GROWTH_MEGABYTES = 20, 100


def replies_come_three_times(stage: Stage) -> RunDetails:
    for number in range(ROUNDS):
        stage.arm("three times", SENDS_ANSWER, number + 1, SECOND, name=f"a{number}")
    return stage.finish_as_simulated(stage.submit(stage.plain))


def update_is(what: str) -> Callable[[Stage], RunDetails]:
    """Have a hostile site answer round 3 with something else, behind its own guard."""

    def act(stage: Stage) -> RunDetails:
        stage.arm(what, ANSWERS, 3, SECOND)
        details = stage.finish(stage.submit(stage.plain))
        counted = {report.round: set(report.sites) for report in details.history}
        assert counted[3] == {FIRST, THIRD}, f"round 3 counted {counted[3]}"
        assert counted[4] == set(SITES), f"round 4 counted {counted[4]}"
        assert refusals_of(details)[3, SECOND], "no reason is given"
        return details

    return act


def instruction_is_huge(stage: Stage) -> RunDetails:
    """Have a hostile server send one site, in rounds 2 and 3, more than its policy allows."""
    policy = stage.site(SECOND) / POLICY_FILE
    before = policy.read_text()
    policy.write_text(_with_limit(before, _SITE_LIMIT_MEGABYTES))
    try:
        stage.arm("300 MB more in one piece", ADDRESSES, 5, name="a")  # the second site, round 2
        stage.arm("120 MB more", ADDRESSES, 7, name="b")  # round 3; the 5th is not counted
        stage.arm("hold", SENDS, 2, name="c")
        run = stage.submit(stage.plain)
        stage.wait_reached("c")
        memory = PeakMemory(stage.site_processes(SECOND))
        stage.go("c")
        details = stage.finish(run)
        grown = memory.growth_megabytes()
    finally:
        policy.write_text(before)
    _refused_and_back(details, (2, 3))
    assert grown < _GROWTH_MEGABYTES, f"the site took {grown:.0f} MB more"
    return details


def reply_is_huge(bulk: str) -> Callable[[Stage], RunDetails]:
    """Have a hostile site answer round 3 with far more than it was sent, behind its own guard."""

    def act(stage: Stage) -> RunDetails:
        stage.arm(bulk, ANSWERS, 3, SECOND, name="a")
        stage.arm("hold", TRAINS, 3, SECOND, name="b")
        stage.arm("hold", TRAINS, 3, SECOND, name="c")  # round 4; the 3rd is not counted
        run = stage.submit(stage.plain)
        stage.wait_reached("b")
        memory = PeakMemory(stage.server_processes().values())
        stage.go("b")
        stage.wait_reached("c")
        grown = memory.growth_megabytes()
        stage.go("c")
        details = stage.finish(run)
        _refused_and_back(details, (3,))
        assert details.starts == 1, f"the study's process was started {details.starts} times"
        assert grown < _GROWTH_MEGABYTES, f"the server took {grown:.0f} MB more"
        return details

    return act


def _refused_and_back(details: RunDetails, rounds: tuple[int, ...]) -> None:
    counted = {report.round: set(report.sites) for report in details.history}
    for number in range(1, ROUNDS + 1):
        expected = {FIRST, THIRD} if number in rounds else set(SITES)
        assert counted[number] == expected, f"round {number} counted {counted[number]}"
    for number in rounds:
        assert refusals_of(details)[number, SECOND], "no reason is given"


def _with_limit(policy: str, megabytes: int) -> str:
    kept = [line for line in policy.splitlines() if not line.startswith("largest_message")]
    return "\n".join([f"largest_message_megabytes = {megabytes}", *kept, ""])


FAULTS = (
    Fault(
        "22",
        "every answer of a site sent three times",
        "one is counted; the same model",
        replies_come_three_times,
    ),
    Fault(
        "23",
        "a site answers with its update of the round before",
        REFUSED,
        update_is("the answer before"),
    ),
    Fault("24", "an update with NaN", REFUSED, update_is("NaN")),
    Fault("25", "an update of another shape", REFUSED, update_is("wrong shape")),
    Fault("26", "an update a million times too large", REFUSED, update_is("huge norm")),
    Fault(
        "27",
        "orders of 300 MB (one piece, named 60 times) and 120 MB to a site that allows 20 MB",
        f"{REFUSED}; the site's memory grows by less than 100 MB",
        instruction_is_huge,
    ),
    Fault(
        "27b",
        "an answer of 300 MB (one piece, named 60 times) to an order of some kB",
        f"{REFUSED}; the server's memory grows by less than 100 MB",
        reply_is_huge("300 MB more in one piece"),
    ),
    Fault(
        "27c",
        "an answer of 120 MB to an order of some kB",
        f"{REFUSED}; the server's memory grows by less than 100 MB",
        reply_is_huge("120 MB more"),
    ),
)
