"""Faults: answers that are not what they should be, from a site that is hostile or broken."""

from collections.abc import Callable

from tests.faults.stage import ROUNDS, SITES, Stage, refusals_of
from tests.faults.table.fault import ANSWERS, FIRST, REFUSED, SECOND, SENDS_ANSWER, THIRD, Fault

from wardround.server.control_api.messages import RunDetails


def answers_come_three_times(stage: Stage) -> RunDetails:
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


FAULTS = (
    Fault(
        "22",
        "every answer of a site sent three times",
        "one is counted; the same model",
        answers_come_three_times,
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
)
