"""A live page over real HTTP: who gets in, what is sent, what may be done."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from wardround.common.errors import InputError
from wardround.common.html.live.feed import MOST_READERS
from wardround.common.html.live.page import Document, Fields, LivePage, Region, Told
from wardround.common.html.live.serving import Served, live_page


class _Source:
    """What a page shows; a test changes it."""

    def __init__(self) -> None:
        self.now, self.table, self.draws, self.is_over = "<p>one</p>", "<p>still</p>", 0, False
        self.fails = False
        self.cpu_seconds = 0.0

    def draw(self) -> Mapping[str, str]:
        self.draws += 1
        until = time.thread_time() + self.cpu_seconds
        while time.thread_time() < until:
            pass
        if self.fails:
            msg = "patient-4711 broke it"
            raise ValueError(msg)
        return {"now": self.now, "table": self.table}


def _stop(fields: Fields, who: str) -> Told:
    if fields.get("run") != "lung-1":
        msg = f"no run {fields.get('run')!r}: see the list."
        raise InputError(msg)
    return Told(f"{who} stopped lung-1.", "token-once")


@contextmanager
def _served(source: _Source, **more: object) -> Iterator[Served]:
    page = LivePage(
        title="Lung <2026>",
        regions=(Region("now", "Now", announced=True), Region("table")),
        draw=source.draw,
        actions={"stop": _stop},
        documents={
            "report.html": lambda: Document(b"<!doctype html><p>report"),
            "none": lambda: None,
        },
        ended=lambda: source.is_over,
        interval_seconds=0.05,
    )
    with live_page(page) as served:
        yield served


def _events(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: {}":
            yield json.loads(line.removeprefix("data: "))


def _post(served: Served, name: str, fields: Mapping[str, str], **headers: str) -> httpx.Response:
    own = {"Origin": f"http://127.0.0.1:{served.port}", "X-Wardround": "1"}
    sent = {key: value for key, value in {**own, **headers}.items() if value}
    return httpx.post(f"{served.link}do/{name}", data=dict(fields), headers=sent)


def test_the_page_can_be_read_before_its_script_runs() -> None:
    with _served(_Source()) as served:
        answer = httpx.get(served.link)
    assert answer.status_code == 200
    assert "<p>one</p>" in answer.text
    assert "Lung &lt;2026&gt;" in answer.text


def test_a_reader_is_sent_all_regions_and_then_only_those_that_changed() -> None:
    source = _Source()
    with _served(source) as served, httpx.stream("GET", f"{served.link}events") as answer:
        told = _events(answer.iter_lines())
        assert next(told)["regions"] == {"now": "<p>one</p>", "table": "<p>still</p>"}
        source.now = "<p>two</p>"
        assert next(told)["regions"] == {"now": "<p>two</p>"}


def test_a_page_is_drawn_once_for_all_its_readers_and_not_at_all_without() -> None:
    source = _Source()
    with _served(source) as served:
        time.sleep(0.3)
        assert source.draws == 0
        with httpx.Client() as client:
            streams = [client.stream("GET", f"{served.link}events") for _ in range(10)]
            answers = [stream.__enter__() for stream in streams]
            events = [_events(answer.iter_lines()) for answer in answers]
            told = [next(one) for one in events]
            time.sleep(0.5)
            for stream in streams:
                stream.__exit__(None, None, None)
        assert all(one == told[0] for one in told)
        assert source.draws < 30  # 10 readers for a second would be 200


@pytest.mark.parametrize(("cpu_seconds", "least", "most"), [(0.0, 8, 40), (0.04, 1, 2)])
def test_a_page_that_takes_long_to_draw_is_drawn_less_often(
    cpu_seconds: float, least: int, most: int
) -> None:
    source = _Source()
    source.cpu_seconds = cpu_seconds
    with _served(source) as served, httpx.stream("GET", f"{served.link}events") as answer:
        events = _events(answer.iter_lines())
        next(events)
        time.sleep(1.0)
        assert least <= source.draws <= most  # 0.04 s of a core: 25 times a second without a limit


def test_a_page_that_cannot_be_drawn_says_so_and_keeps_what_it_has() -> None:
    source = _Source()
    with _served(source) as served, httpx.stream("GET", f"{served.link}events") as answer:
        told = _events(answer.iter_lines())
        assert next(told)["stale"] is False
        source.fails = True
        stale = next(told)
        assert stale == {"regions": {}, "stale": True}
        source.fails = False
        assert next(told)["stale"] is False


def test_the_last_state_is_sent_before_a_page_ends() -> None:
    source = _Source()
    lines: list[str] = []
    with _served(source) as served, httpx.stream("GET", f"{served.link}events") as answer:
        kept = answer.iter_lines()
        next(_events(kept))
        source.now, source.is_over = "<p>the end</p>", True
        lines = list(kept)
    assert any("the end" in line for line in lines)
    assert "event: over" in lines


@pytest.mark.parametrize("path", ["", "wrong", "wrong/", "wrong/events", "/", "../x"])
def test_without_the_secret_of_the_link_nothing_is_told(path: str) -> None:
    with _served(_Source()) as served:
        answer = httpx.get(f"http://127.0.0.1:{served.port}/{path}")
    assert answer.status_code == 404
    assert "one" not in answer.text.replace("one that was printed", "")


def test_a_foreign_host_name_is_refused_even_with_the_secret() -> None:
    with _served(_Source()) as served:
        answer = httpx.get(served.link, headers={"Host": f"evil.example:{served.port}"})
    assert answer.status_code == 421


def test_nothing_is_loaded_from_elsewhere_and_no_script_stands_in_the_page() -> None:
    with _served(_Source()) as served:
        answer = httpx.get(served.link)
        events = httpx.get(f"{served.link}live.js")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert events.headers["content-type"].startswith("text/javascript")
    assert "<script>" not in answer.text
    assert " style=" not in answer.text


def test_an_action_is_done_and_told() -> None:
    with _served(_Source()) as served:
        answer = _post(served, "stop", {"run": "lung-1"})
    assert answer.json() == {"ok": True, "said": "local stopped lung-1.", "secret": "token-once"}


def test_a_refused_action_is_told_with_its_sentence() -> None:
    with _served(_Source()) as served:
        answer = _post(served, "stop", {"run": "x"})
    assert (answer.status_code, answer.json()["said"]) == (409, "no run 'x': see the list.")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"X-Wardround": ""}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_another_web_page_can_do_nothing(headers: dict[str, str], status: int) -> None:
    with _served(_Source()) as served:
        assert _post(served, "stop", {"run": "lung-1"}, **headers).status_code == status


def test_what_a_page_does_not_allow_is_refused() -> None:
    with _served(_Source()) as served:
        assert _post(served, "resume", {}).status_code == 403
        assert httpx.put(served.link).status_code == 405


@pytest.mark.parametrize("content", [b"run=" + b"x" * 1_100_000, b"run=%FF%FE", b"a&" * 60])
def test_a_form_that_is_none_is_refused(content: bytes) -> None:
    with _served(_Source()) as served:
        answer = httpx.post(
            f"{served.link}do/stop",
            content=content,
            headers={
                "Origin": f"http://127.0.0.1:{served.port}",
                "X-Wardround": "1",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
    assert answer.status_code == 413


def test_a_file_is_given_by_its_name_alone() -> None:
    with _served(_Source()) as served:
        assert httpx.get(f"{served.link}files/report.html").content.endswith(b"<p>report")
        assert httpx.get(f"{served.link}files/none").status_code == 404
        assert httpx.get(f"{served.link}files/..%2Fstudy.toml").status_code == 404


def test_more_readers_than_have_a_place_are_told_so() -> None:
    with _served(_Source()) as served, httpx.Client(limits=httpx.Limits()) as client:
        streams = [client.stream("GET", f"{served.link}events") for _ in range(MOST_READERS)]
        lines = [stream.__enter__().iter_lines() for stream in streams]  # dropped, one is closed
        assert {next(one) for one in lines} == {"retry: 2000"}
        assert client.get(f"{served.link}events").status_code == 503
        for stream in streams:
            stream.__exit__(None, None, None)


def test_a_port_that_is_taken_or_none_is_refused_in_words() -> None:
    source = _Source()
    with _served(source) as served:
        page = LivePage("A page", (), source.draw)
        with pytest.raises(InputError, match="is taken"), live_page(page, served.port):
            pass
        with pytest.raises(InputError, match="is no port"), live_page(page, 70_000):
            pass
