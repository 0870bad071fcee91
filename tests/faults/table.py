"""The table of faults: what is done to real processes, and what must come of it.

The numbers are those of the project's plan of reliability tests. Each fault is a function that does
it, and raises AssertionError where what comes of it is not what is expected.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.proxy import BOTH, TO_SITE
from tests.faults.stage import (
    DEADLINE_SECONDS,
    ROUNDS,
    SITES,
    Stage,
    copy_folder,
    flip_byte,
    refusals_of,
    wait_until,
)

from wardround.client.privacy.ledger_entries import Repaired, Reserved
from wardround.client.privacy.ledger_file import LEDGER_FILE, LEDGER_FOLDER, read_ledger
from wardround.server.control_api.messages import RunDetails
from wardround.server.run_folder import RunFolder

FIRST, SECOND, THIRD = SITES
TRAINS, ANSWERS = "client.session:SiteSession.train", "client.door:Door.train"
RESERVES = "client.privacy.ledger:PrivacyLedger.reserve"
RELEASES = "client.privacy.ledger:PrivacyLedger.release"
SENDS, FOLDS = "server.rounds:pack_order", "server.rounds:unpack_update"
AGGREGATES, COMMITS = "server.rounds:as_measurements", "server.checkpoints:CheckpointStore._write"
_STOPPED_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        expected: What comes of it, as it stands in the documentation.
        act: Does it, and returns the run that it was done to.
    """

    number: str
    name: str
    expected: str
    act: Callable[[Stage], RunDetails]


# --- The server side is killed ------------------------------------------------------------------


def study_dies_at(point: str, call: int) -> Callable[[Stage], RunDetails]:
    def act(stage: Stage) -> RunDetails:
        stage.arm("die", point, call)
        details = stage.finish_as_simulated(stage.submit(stage.plain))
        assert details.starts == 2, f"its process was started {details.starts} times"
        return details

    return act


def server_dies_while_collecting(stage: Stage) -> RunDetails:
    stage.arm("die with parent", FOLDS, 5)  # in round 2, with one of three answers taken in
    run = stage.submit(stage.plain)
    stage.restart_server()
    details = stage.finish_as_simulated(run)
    for name in SITES:
        trained = stage.calls(TRAINS, name)
        assert trained == ROUNDS, f"{name} trained {trained} times for {ROUNDS} rounds"
    return details


def link_dies_while_collecting(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, SECOND)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    stage.server_processes()["link"].kill()
    stage.go()
    details = stage.finish_as_simulated(run)
    trained = stage.calls(TRAINS, FIRST)
    assert trained == ROUNDS, f"{FIRST} trained {trained} times for {ROUNDS} rounds"
    return details


# --- A site is killed ---------------------------------------------------------------------------


def _reserved(stage: Stage, name: str) -> int:
    entries = read_ledger(stage.site(name)).entries
    return sum(isinstance(one.fact, Reserved) for one in entries)


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


# --- Stopped, slow, cut off ---------------------------------------------------------------------


def _one_was_late(stage: Stage, run: str) -> RunDetails:
    details = stage.finish(run)
    second = details.history[1]
    assert second.round == 2
    assert set(second.sites) == {FIRST, SECOND}, f"round 2 counted {second.sites}"
    assert "deadline" in refusals_of(details)[2, THIRD]
    return details


def site_is_stopped(stage: Stage) -> RunDetails:
    stage.arm("freeze with parent", TRAINS, 2, THIRD)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    time.sleep(_STOPPED_SECONDS)
    stage.thaw()
    return _one_was_late(stage, run)


def server_is_stopped(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, SECOND)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    processes = stage.server_processes().values()
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    stage.go()
    time.sleep(_STOPPED_SECONDS)
    stage.thaw()
    return stage.finish_as_simulated(run)


def site_is_slow(stage: Stage) -> RunDetails:
    stage.arm("sleep 20 s", TRAINS, 2, THIRD)
    return _one_was_late(stage, stage.submit(stage.hurried))


def site_is_cut_off(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, THIRD)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    stage.proxies[THIRD].lose(BOTH)
    stage.go()
    time.sleep(_STOPPED_SECONDS)
    stage.proxies[THIRD].mend()
    return _one_was_late(stage, run)


def all_are_cut_off(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, FIRST)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    for proxy in stage.proxies.values():
        proxy.lose(BOTH)
    stage.go()
    # Those that had answered before count; fewer than two is no quorum.
    details = stage.await_end(run)
    assert details.summary.state == "failed", details.summary.state
    assert "needs 2" in details.summary.message, details.summary.message
    for proxy in stage.proxies.values():
        proxy.mend()
    stage.await_sites()
    with stage.line() as line:
        line.resume(run)
    return stage.finish(run)


def answers_to_site_are_lost(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, THIRD)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    stage.proxies[THIRD].lose(TO_SITE)
    stage.go()
    time.sleep(_STOPPED_SECONDS / 2)
    stage.proxies[THIRD].mend()
    details = stage.finish_as_simulated(run)
    trained = stage.calls(TRAINS, THIRD)
    assert trained == ROUNDS, f"{THIRD} trained {trained} times for {ROUNDS} rounds"
    return details


def site_leaves_for_good(stage: Stage) -> RunDetails:
    stage.arm("die with parent", TRAINS, 2, THIRD)
    details = stage.finish(stage.submit(stage.hurried))
    counted = {report.round: set(report.sites) for report in details.history}
    for number in range(2, ROUNDS + 1):
        assert counted[number] == {FIRST, SECOND}, f"round {number} counted {counted[number]}"
        assert (number, THIRD) in refusals_of(details)
    return details


# --- Disks --------------------------------------------------------------------------------------


def disk_of_server_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", COMMITS, 5)
    details = stage.finish_as_simulated(stage.submit(stage.plain))
    assert details.starts == 2, f"its process was started {details.starts} times"
    return details


def disk_of_site_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", "client.privacy.ledger_file:_write", 5, SECOND)
    trained = stage.calls(TRAINS, SECOND)
    details = stage.finish(stage.submit(stage.private))
    refused = [number for number, site in refusals_of(details) if site == SECOND]
    assert refused, "it should have refused a round"
    drawn = stage.calls(TRAINS, SECOND) - trained
    assert drawn <= ROUNDS, f"it trained {drawn} times"
    return details


def commit_is_damaged(stage: Stage) -> RunDetails:
    stage.arm("die with parent", FOLDS, 8)  # in round 3
    run = stage.submit(stage.plain)
    wait_until(lambda: stage.federation.child("server").exit_code is not None)
    checkpoints = RunFolder(stage.federation.server, run).checkpoints
    assert (checkpoints / "round-00002").is_dir()
    flip_byte(checkpoints / "round-00002" / "model.safetensors", -3)
    stage.restart_server()
    return stage.finish_as_simulated(run)


# --- Ledgers ------------------------------------------------------------------------------------


def _ledger_refuses(stage: Stage, run: str) -> RunDetails:
    details = stage.finish(run)
    for report in details.history:
        if report.sites:
            assert SECOND not in report.sites, f"{SECOND} trained in round {report.round}"
    return details


def ledger_is_torn(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    path = stage.site(SECOND) / LEDGER_FOLDER / LEDGER_FILE
    with path.open("ab") as stream:
        stream.write(b'{"fact":{"attempt":0,"dat')
    details = stage.finish(stage.submit(stage.private))
    assert all(SECOND in report.sites for report in details.history if report.sites)
    entries = read_ledger(stage.site(SECOND)).entries
    assert any(isinstance(one.fact, Repaired) for one in entries)
    return details


def ledger_is_edited(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    path = stage.site(SECOND) / LEDGER_FOLDER / LEDGER_FILE
    whole = path.read_bytes()
    flip_byte(path, len(whole) // 2)
    try:
        return _ledger_refuses(stage, stage.submit(stage.private))
    finally:
        path.write_bytes(whole)


def ledger_is_rolled_back(stage: Stage) -> RunDetails:
    stage.finish(stage.submit(stage.private))
    ledger, kept = stage.site(SECOND) / LEDGER_FOLDER, stage.folder / "kept-ledger"
    newer = stage.folder / "newer-ledger"
    copy_folder(ledger, kept)
    stage.arm("hold", SENDS, 3)
    run = stage.submit(stage.private)
    stage.wait_reached()
    copy_folder(ledger, newer)
    copy_folder(kept, ledger)
    stage.go()
    try:
        details = stage.finish(run)
    finally:
        copy_folder(newer, ledger)
    counted = {report.round: report.sites for report in details.history}
    assert SECOND in counted[2]
    assert SECOND not in counted[3], "a ledger that forgot was believed"
    assert SECOND not in counted[4]
    return details


# --- Answers that are not what they should be ---------------------------------------------------


def answers_come_three_times(stage: Stage) -> RunDetails:
    for number in range(ROUNDS):
        stage.arm("three times", SENDS_ANSWER, number + 1, SECOND, name=f"a{number}")
    return stage.finish_as_simulated(stage.submit(stage.plain))


SENDS_ANSWER = "common.flower.carrier:Carrier.push"


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


def site_has_another_version(stage: Stage) -> RunDetails:
    stage.arm("another version", "client.door:Door.introduce", 1, SECOND)
    details = stage.finish(stage.submit(stage.plain))
    assert all(SECOND not in report.sites for report in details.history)
    log = (RunFolder(stage.federation.server, details.summary.run).path / "log.jsonl").read_text()
    assert "0.0.1" in log, "both versions should be named"
    return details


# --- Twice --------------------------------------------------------------------------------------


def _refused_command(*words: str) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 3, f"exit code {said.returncode}: {said.stderr}"
    return said.stderr


def second_server(stage: Stage) -> RunDetails:
    run = stage.submit(stage.plain)
    said = _refused_command("server", "start", str(stage.federation.server))
    assert "works in" in said, said
    return stage.finish_as_simulated(run)


def second_daemon(stage: Stage) -> RunDetails:
    run = stage.submit(stage.plain)
    said = _refused_command("site", "start", str(stage.site(FIRST)))
    assert "another daemon" in said, said
    return stage.finish_as_simulated(run)


_SAME = "goes on from the last commit; the same model, bit for bit, as without the fault"
_QUORUM = "left out of that round at the deadline; the others go on; its late answer is not counted"
_REFUSED = "refused, with the site's name and the reason; the others go on; the next round has it"

FAULTS = (
    Fault(
        "1", "kill -9 of a study's process before it sends a round", _SAME, study_dies_at(SENDS, 2)
    ),
    Fault(
        "2",
        "kill -9 of the whole server while it collects",
        f"{_SAME}; no site trains twice",
        server_dies_while_collecting,
    ),
    Fault(
        "2b",
        "kill -9 of the link while sites train",
        f"{_SAME}; who had answered does not train again",
        link_dies_while_collecting,
    ),
    Fault(
        "3", "kill -9 of a study's process while it aggregates", _SAME, study_dies_at(AGGREGATES, 2)
    ),
    Fault(
        "4",
        "kill -9 of a study's process between writing a model and sealing the commit",
        f"the old model, never a mixture; {_SAME}",
        study_dies_at(COMMITS, 6),
    ),
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
    Fault("8", "SIGSTOP of a site for 20 s", _QUORUM, site_is_stopped),
    Fault("9", "SIGSTOP of the server for 20 s", _SAME, server_is_stopped),
    Fault("10", "network to one site cut for 20 s", _QUORUM, site_is_cut_off),
    Fault(
        "11",
        "network to all sites cut",
        "the run fails and names the missing quorum; resumed, it finishes",
        all_are_cut_off,
    ),
    Fault(
        "12",
        "the server's words to one site are lost for 10 s",
        f"{_SAME}; the site does not train twice",
        answers_to_site_are_lost,
    ),
    Fault("13", "a site that takes 20 s longer than the deadline allows", _QUORUM, site_is_slow),
    Fault(
        "15",
        "no space left when the server commits (error injected)",
        f"no commit; {_SAME}",
        disk_of_server_is_full,
    ),
    Fault(
        "16",
        "no space left when a site charges (error injected)",
        "the site refuses that round; the others go on",
        disk_of_site_is_full,
    ),
    Fault(
        "17",
        "a byte of the last commit's model changed",
        "the commit before it is used; " + _SAME,
        commit_is_damaged,
    ),
    Fault(
        "18",
        "torn last line of a site's ledger",
        "cut off, noted as repaired; the site takes part",
        ledger_is_torn,
    ),
    Fault(
        "19",
        "a byte in the middle of a site's ledger changed",
        "the site takes no part; the others go on",
        ledger_is_edited,
    ),
    Fault(
        "20",
        "a site's ledger restored from an old copy during a run",
        "refused: the server remembers a longer one; the others go on",
        ledger_is_rolled_back,
    ),
    Fault(
        "22",
        "every answer of a site sent three times",
        "one is counted; the same model",
        answers_come_three_times,
    ),
    Fault(
        "23",
        "a site answers with its update of the round before",
        _REFUSED,
        update_is("the answer before"),
    ),
    Fault("24", "an update with NaN", _REFUSED, update_is("NaN")),
    Fault("25", "an update of another shape", _REFUSED, update_is("wrong shape")),
    Fault("26", "an update a million times too large", _REFUSED, update_is("huge norm")),
    Fault(
        "28",
        "a site of another version",
        "takes no part; both versions are named",
        site_has_another_version,
    ),
    Fault(
        "30",
        "a second server in the same folder",
        "refused at start; the run goes on",
        second_server,
    ),
    Fault(
        "31",
        "a second daemon for a site folder",
        "refused at start; the run goes on",
        second_daemon,
    ),
    Fault(
        "34",
        "a site that leaves for good",
        f"each round waits its {DEADLINE_SECONDS:g} s; the study ends with the others",
        site_leaves_for_good,
    ),
)
