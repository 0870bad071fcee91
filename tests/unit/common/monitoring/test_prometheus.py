"""The metrics listener: what it answers, and that no reader can hold it up."""

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as families
from pydantic import TypeAdapter, ValidationError

from wardround.common.monitoring.addresses import MetricsAddress, is_loopback
from wardround.common.monitoring.listener import MetricsListener
from wardround.common.monitoring.prometheus import (
    OTHER,
    bounded,
    counter,
    counters,
    gauge,
    served,
    versions,
)

HOSTILE = 'a"b\\c\nd{x="1"} 7\n# TYPE evil counter\u202e' + "x" * 1000


def whole() -> Iterator[object]:
    yield versions("w", version="0.1.0")
    yield gauge("w_room_bytes", "Room.", 5.0)
    yield counter("w_answers", "Answers.", 3.0)
    yield counters("w_refusals", "Refusals.", "reason", {"policy": 2.0, HOSTILE: 1.0})


def broken() -> Iterator[object]:
    yield gauge("w_half", "Half of a part.", 1.0)
    raise OSError


@pytest.fixture
def listener() -> Iterator[MetricsListener]:
    found = served("127.0.0.1:0", "w", (whole, broken))  # type: ignore[arg-type] # generators
    assert found is not None
    yield found
    found.close()


def asked(
    listener: MetricsListener, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[int, str, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", listener.port, timeout=20)) as line:
        line.request(method, path, headers=headers)
        reply = line.getresponse()
        return reply.status, reply.headers["Content-Type"], reply.read().decode()


def test_what_is_answered_parses_in_both_forms(listener: MetricsListener) -> None:
    status, kind, text = asked(listener)
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    found = {one.name: one for one in families(text)}
    assert {"w_info", "w_room_bytes", "w_answers", "process_resident_memory_bytes"} <= set(found)
    assert found["w_unmeasured_parts"].samples[0].value == 1  # and nothing of the broken part
    assert "w_half" not in found
    assert "evil" not in found
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    status, kind, text = asked(listener, Accept=accept)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    samples = {s.name: s.value for one in openmetrics_families(text) for s in one.samples}
    assert samples["w_answers_total"] == 3


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=x", ";;,=", "\xff" * 9])
def test_a_header_of_nonsense_gets_plain_text(listener: MetricsListener, accept: str) -> None:
    assert asked(listener, Accept=accept)[0] == 200


def test_nothing_else_is_answered(listener: MetricsListener) -> None:
    assert asked(listener, "POST")[0] == 405
    assert asked(listener, path="/")[0] == 404
    assert asked(listener, Host="evil.example:80")[0] == 421  # a page that asks from a browser here
    assert asked(listener, Host=f"localhost:{listener.port}")[0] == 200
    assert asked(listener, "HEAD") == (200, "text/plain; version=0.0.4; charset=utf-8", "")


def is_cut_off(line: socket.socket, said: bytes = b"") -> bool:
    line.settimeout(5)
    try:
        line.sendall(said)
        return line.recv(10) == b""
    except ConnectionError:
        return True


def test_slow_large_and_many_readers_hold_nobody_up(
    listener: MetricsListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wardround.common.monitoring.listener._SECONDS", 0.5)
    address = ("127.0.0.1", listener.port)
    slow = [socket.create_connection(address) for _ in range(40)]
    for one in slow:
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
    time.sleep(1.0)
    started = time.monotonic()
    assert asked(listener)[0] == 200
    assert time.monotonic() - started < 5
    for one in slow:
        with closing(one):
            assert is_cut_off(one)
    with socket.create_connection(address) as large:
        assert is_cut_off(large, b"GET /" + b"x" * 100_000)
    assert asked(listener)[0] == 200


def test_labels_cannot_grow_without_end() -> None:
    kept = bounded({f"site-{number:05d}" * 20: 1.0 for number in range(2000)})
    assert len(kept) <= 501
    assert max(map(len, kept)) <= 64
    assert sum(kept.values()) == 2000
    assert OTHER in kept


def test_a_port_that_is_taken_or_a_package_that_is_missing_ends_nothing(
    listener: MetricsListener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert served(f"127.0.0.1:{listener.port}", "w", ()) is None
    assert "name another port" in caplog.text
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert served("127.0.0.1:0", "w", ()) is None
    assert "pip install" in caplog.text
    assert served("", "w", ()) is None


@pytest.mark.parametrize("text", ["9464", ":9464", "example.org:9464", "*:1", "0.0.0.0", "[::1]"])
def test_an_address_is_written_out(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(MetricsAddress).validate_python(text)


def test_which_addresses_are_this_machine_alone() -> None:
    assert is_loopback("127.0.0.1:1")
    assert is_loopback("[::1]:1")
    assert is_loopback("localhost:1")
    assert not is_loopback("0.0.0.0:1")
    assert not is_loopback("[::]:1")
    assert not is_loopback("10.0.0.1:1")
