"""What the page asks a server, and how often."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.stage import wait_until
from tests.unit.server.operators.page.test_regions import a_record, a_run, a_site

from wardround.common.errors import RunError
from wardround.server.operators.messages import (
    RunEvent,
    RunRecord,
    Runs,
    RunSummary,
    ServerSummary,
    Sites,
    Submission,
    Submitted,
)
from wardround.server.operators.page.lookout import Lookout, choose


@dataclass(slots=True)
class FakeServer:
    """A server that counts what it is asked."""

    known: tuple[RunSummary, ...] = ()
    asked: list[str] = field(default_factory=list)
    is_away: bool = False
    ended: list[str] = field(default_factory=list)

    def runs(self) -> Runs:
        self._note("runs")
        return Runs(self.known)

    def sites(self) -> Sites:
        self._note("sites")
        return Sites((a_site(),))

    def server(self) -> ServerSummary:
        self._note("server")
        return ServerSummary("Lung", "0.1.0", "fl:8443", 0.0, True, 1, 1, {}, None)

    def record(self, run: str) -> RunRecord:
        self._note(f"record {run}")
        return a_record(self.known[-1])

    def watch(
        self, run: str, begun: Callable[[Callable[[], object]], None] = lambda _: None
    ) -> Iterator[RunEvent]:
        self._note(f"watch {run}")
        over = threading.Event()
        begun(over.set)
        yield RunEvent("round", "running", round=1)
        over.wait(30)
        self.ended.append(run)

    def submit(self, submission: Submission) -> Submitted:
        raise NotImplementedError

    def stop(self, run: str) -> RunSummary:
        raise NotImplementedError

    def resume(self, run: str) -> RunSummary:
        raise NotImplementedError

    def _note(self, what: str) -> None:
        if self.is_away:
            msg = "no server answers at fl:8443."
            raise RunError(msg)
        self.asked.append(what)


def test_a_record_is_asked_for_after_a_round_and_not_at_each_look() -> None:
    clock = [100.0]
    server = FakeServer((a_run(round=1),))
    lookout = Lookout(server, lambda: clock[0])
    try:
        for _ in range(3):
            clock[0] += 1.0
            lookout.look()
        assert server.asked.count("record lung-1") == 1
        assert server.asked.count("server") == 1
        server.known = (a_run(round=2),)
        clock[0] += 1.0
        lookout.look()
        assert server.asked.count("record lung-1") == 1, "the last is not four seconds old"
        clock[0] += 4.0
        lookout.look()
        assert server.asked.count("record lung-1") == 2
        server.known = (a_run("finished", round=2),)
        lookout.look()
        assert server.asked.count("record lung-1") == 3, "an end is shown at once"
        assert server.asked.count("watch lung-1") == 1
    finally:
        lookout.close()


def test_what_happens_comes_by_a_watch_that_ends_with_the_page() -> None:
    server = FakeServer((a_run(),))
    lookout = Lookout(server)
    wait_until(lambda: lookout.look().shown[0].events)
    lookout.close()
    wait_until(lambda: server.ended)


def test_a_watch_ends_when_nobody_looks_and_begins_again_with_the_next_look() -> None:
    clock = [0.0]
    server = FakeServer((a_run(),))
    lookout = Lookout(server, lambda: clock[0], rest_seconds=0.02)
    try:
        lookout.look()
        wait_until(lambda: "watch lung-1" in server.asked)
        clock[0] += 20.0
        wait_until(lambda: server.ended)
        lookout.look()
        wait_until(lambda: server.asked.count("watch lung-1") == 2)
    finally:
        lookout.close()


def test_a_server_that_does_not_answer_is_told_and_what_it_said_last_stays() -> None:
    server = FakeServer((a_run(),))
    lookout = Lookout(server)
    try:
        assert lookout.look().trouble == ""
        server.is_away = True
        sight = lookout.look()
        assert sight.trouble == "no server answers at fl:8443."
        assert [run.run for run in sight.runs] == ["lung-1"]
        server.is_away = False
        assert lookout.look().trouble == ""
    finally:
        lookout.close()


def test_the_course_is_that_of_the_runs_under_way_or_else_of_the_last_that_ended() -> None:
    old, new = a_run("finished", run="a-1", ended=5.0), a_run("failed", run="b-2", ended=9.0)
    queued = a_run("queued", run="c-3")
    assert choose((old, new, queued)) == (new,)
    work = tuple(a_run(run=f"d-{n}") for n in range(6))
    assert choose((old, *work)) == work[:4]
    assert choose(()) == ()
