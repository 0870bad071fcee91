"""Faults: a site is killed, stopped, slow, of another version, or there twice."""

import time
from collections.abc import Callable

from tests.faults.stage import DEADLINE_SECONDS, ROUND_STEPS, ROUNDS, SITES, Stage, refusals_of
from tests.faults.table.fault import (
    FIRST,
    QUORUM,
    RELEASES,
    RESERVES,
    SECOND,
    STEPS,
    STOPPED_SECONDS,
    THIRD,
    TRAINS,
    Fault,
    one_was_late,
    refused_command,
)

from wardround.client.privacy.ledger.charges import TRAIN
from wardround.client.privacy.ledger.entries import Reserved
from wardround.client.privacy.ledger.file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
from wardround.server.operators.messages import RunDetails
from wardround.server.scheduling.folder import RunFolder


def _reserved(stage: Stage, name: str) -> int:
    entries = read_ledger(stage.site(name)).entries
    # Those of rounds: what is measured on other patients is charged to them, apart.
    return sum(isinstance(one.fact, Reserved) and one.fact.part == TRAIN for one in entries)


def _charged(stage: Stage, name: str) -> int:
    path = stage.site(name) / LEDGER_FOLDER / LEDGER_FILE
    return _reserved(stage, name) if path.exists() else 0


def site_dies_at(point: str, after: bool, most: int) -> Callable[[Stage], RunDetails]:
    """Kill a site in round 2 of the private study.

    Args:
        most: Charges of the whole run that are allowed; fewer than a charge a round never are.
    """

    def act(stage: Stage) -> RunDetails:
        before = _charged(stage, SECOND)
        stage.arm("die with parent", point, 2, SECOND, after)
        run = stage.submit(stage.private)
        stage.restart_site(SECOND)
        details = stage.finish(run)
        answered = sum(SECOND in report.sites for report in details.history)
        charged = _charged(stage, SECOND) - before
        assert answered >= ROUNDS - 1, (
            f"{SECOND} answered {answered} rounds: {refusals_of(details)}"
        )
        assert answered <= charged <= most, f"{charged} charges for {answered} answers"
        if point == RELEASES and answered == ROUNDS:
            draws = stage.calls(TRAINS, SECOND)
            assert draws == ROUNDS, f"noise was drawn {draws} times for {ROUNDS} answers"
        return details

    return act


def site_is_stopped(stage: Stage) -> RunDetails:
    stage.arm("freeze with parent", TRAINS, 2, THIRD)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    time.sleep(STOPPED_SECONDS)
    stage.thaw()
    return one_was_late(stage, run)


def site_is_slow(stage: Stage) -> RunDetails:
    stage.arm("sleep 20 s", TRAINS, 2, THIRD)
    return one_was_late(stage, stage.submit(stage.hurried))


def site_leaves_for_good(stage: Stage) -> RunDetails:
    stage.arm("die with parent", TRAINS, 2, THIRD)
    details = stage.finish(stage.submit(stage.hurried))
    counted = {report.round: set(report.sites) for report in details.history}
    for number in range(2, ROUNDS + 1):
        assert counted[number] == {FIRST, SECOND}, f"round {number} counted {counted[number]}"
        assert (number, THIRD) in refusals_of(details)
    return details


def site_has_another_version(stage: Stage) -> RunDetails:
    stage.arm("another version", "client.egress.gateway:Gateway.describe", 1, SECOND)
    details = stage.finish(stage.submit(stage.plain))
    assert all(SECOND not in report.sites for report in details.history)
    log = (RunFolder(stage.federation.server, details.summary.run).path / "log.jsonl").read_text()
    assert "9.0.1" in log, "both versions should be named"
    return details


def second_daemon(stage: Stage) -> RunDetails:
    run = stage.submit(stage.plain)
    said = refused_command("site", "start", str(stage.site(FIRST)))
    assert "another daemon" in said, said
    return stage.finish_as_simulated(run)


def memory_of_gpu_is_full(stage: Stage) -> RunDetails:
    """Raise torch's error of a full GPU in the second step of a private round that was paid."""
    before = _charged(stage, SECOND)
    stage.arm("no memory", STEPS, ROUND_STEPS + 2, SECOND)
    details = stage.finish(stage.submit(stage.private))
    counted = {report.round: set(report.sites) for report in details.history}
    assert counted[2] == {FIRST, THIRD}, f"round 2 counted {counted[2]}"
    assert counted[3] == counted[4] == set(SITES), "it should take part again"
    assert refusals_of(details)[2, SECOND], "no reason is given"
    charged = _charged(stage, SECOND) - before
    assert charged == ROUNDS, f"{charged} charges; that of round 2 stays"
    return details


FAULTS = (
    Fault(
        "5",
        "kill -9 of a site before it charges a private round",
        "the round is asked again; nothing is charged for the kill",
        site_dies_at(RESERVES, after=False, most=ROUNDS),
    ),
    Fault(
        "6",
        "kill -9 of a site after it charged a private round",
        "the charge stays; at most one charge more than answers",
        site_dies_at(RESERVES, after=True, most=ROUNDS + 1),
    ),
    Fault(
        "7",
        "kill -9 of a site after it released an answer, before it is sent",
        "the kept answer is sent: no new noise, no new charge, counted once",
        site_dies_at(RELEASES, after=True, most=ROUNDS),
    ),
    Fault("8", "SIGSTOP of a site for 20 s", QUORUM, site_is_stopped),
    Fault("13", "a site that takes 20 s longer than the deadline allows", QUORUM, site_is_slow),
    Fault(
        "28",
        "a site of another version",
        "takes no part; both versions are named",
        site_has_another_version,
    ),
    Fault(
        "31",
        "a second daemon for a site folder",
        "refused at start; the run goes on",
        second_daemon,
    ),
    Fault(
        "32",
        "a GPU that runs out of memory in a private round (torch's error planted: no GPU here)",
        "the site refuses that round with a word, its charge stays; it takes part in the next",
        memory_of_gpu_is_full,
    ),
    Fault(
        "34",
        "a site that leaves for good",
        f"one round waits its {DEADLINE_SECONDS:g} s; the study ends with the others",
        site_leaves_for_good,
    ),
)
