"""A round's spans: who was asked, who answered when, and nothing but words and numbers of ours."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from flwr.app import Message, RecordDict

from wardround.common.flower.site_grid import SiteGrid, begin_local_run
from wardround.common.messages.instructions import TRAIN
from wardround.common.monitoring import traces as traces_module
from wardround.common.monitoring.traces import Span, Traces, open_traces
from wardround.server.checkpoints.history import RefusalRecord, RoundRecord, SiteRecord
from wardround.server.rounds.loop import RoundFinished
from wardround.server.scheduling.process import Rounds
from wardround.server.scheduling.round_trace import traced


class Echo(SiteGrid):
    """A grid whose sites answer at once what they were sent."""

    def __init__(self) -> None:
        super().__init__(begin_local_run(1))
        self._there: list[Message] = []

    def set_run(self, run: Any) -> None: ...

    def get_node_ids(self) -> Iterable[int]:
        return (1, 2)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._there = list(messages)
        for number, message in enumerate(self._there):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        return [f"m{number}" for number in range(len(self._there))]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        yield from (Message(RecordDict(), reply_to=one) for one in self._there)

    def close(self) -> None: ...


class Sum:
    """As much of a strategy as a round needs here."""

    def accumulate(self, update: object) -> None:
        time.sleep(0.01)

    def finish(self) -> dict[str, Any]:
        time.sleep(0.02)
        return {}


def a_round(rounds: Rounds) -> None:
    assert rounds.wrap is not None
    strategy = rounds.wrap(Sum())  # type: ignore[arg-type] # no model is made
    grid = rounds.grid
    sent = [grid.create_message(RecordDict(), TRAIN, node, "round 1") for node in (1, 2)]
    ids = grid.push_messages(sent)
    time.sleep(0.05)
    assert len(list(grid.pull_messages(ids))) == 2
    strategy.accumulate(None)  # type: ignore[arg-type]
    strategy.finish()
    sites = tuple(SiteRecord(name, 9, 4, 0.03, 1, 1, 0.5) for name in ("north", "south"))
    record = RoundRecord(1, 0, 0.06, sites, (RefusalRecord("east", "/data/CANARYFILE001.png"),))
    rounds.note(RoundFinished(record, 5, "auroc", 0.5))


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    monkeypatch.setattr(
        "wardround.server.scheduling.round_trace.open_traces",
        lambda endpoint, service: Traces(service, exporter),
    )
    return exporter


def test_a_round_is_a_tree_of_spans(exported: Any) -> None:
    heard: list[RoundFinished] = []
    names = {1: "north", 2: "south"}
    rounds = traced(Rounds(Echo(), heard.append), "x", "tumour-1", lambda: names)
    a_round(rounds)
    rounds.close()
    assert len(heard) == 1
    spans = {
        (one.name, one.attributes.get("wardround.site")): one for one in exported_spans(exported)
    }
    root = spans["round", None]
    assert set(spans) == {
        ("round", None), ("ask site", "north"), ("ask site", "south"), ("train", None),
        ("aggregate", None), ("commit", None),
    }  # fmt: skip
    for name in (("ask site", "north"), ("aggregate", None), ("commit", None)):
        assert spans[name].parent.span_id == root.context.span_id
        assert root.start_time <= spans[name].start_time <= spans[name].end_time <= root.end_time
    asked, train = spans["ask site", "south"], spans["train", None]
    assert train.parent.span_id == asked.context.span_id
    assert 0.02e9 < train.end_time - train.start_time < 0.04e9
    assert spans["aggregate", None].end_time - spans["aggregate", None].start_time >= 0.015e9
    said = " ".join(str(dict(one.attributes)) for one in exported_spans(exported))
    assert "CANARY" not in said
    assert root.attributes["wardround.refusals"] == 1


def exported_spans(exporter: Any) -> Sequence[Any]:
    return list(exporter.get_finished_spans())


class Receiver(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    bodies: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.bodies.append((self.path, self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *about: object) -> None: ...


def test_a_receiver_of_otlp_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    monkeypatch.setattr(Receiver, "bodies", [])
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    traces = open_traces(f"http://127.0.0.1:{server.server_port}", "wardround-server")
    assert traces is not None
    traces.write([Span("round", 10.0, 12.5, {"wardround.round": 3}, (Span("commit", 12, 12.5),))])
    traces.close()
    server.shutdown()
    ((path, body),) = Receiver.bodies
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    spans = {one.name: one for one in resource.scope_spans[0].spans}
    assert spans["round"].start_time_unix_nano == 10 * 10**9
    assert spans["round"].end_time_unix_nano == 12_500_000_000
    assert spans["commit"].parent_span_id == spans["round"].span_id
    service = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert service["service.name"] == "wardround-server"


def test_a_receiver_that_is_away_is_said_once_and_ends_soon(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_module, "_SECONDS", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    said: list[str] = []
    traces = open_traces(f"http://me:TOKEN@127.0.0.1:{port}/x?k=TOKEN", "s", said.append)
    assert traces is not None
    began = time.monotonic()
    for number in range(10_000):  # more than may wait
        traces.write([Span("round", number, number + 1.0)])
    traces.close()
    assert time.monotonic() - began < 20
    time.sleep(0.2)
    assert len(said) <= 1
    assert "TOKEN" not in "".join(said) + caplog.text
    logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


def test_nothing_is_imported_and_nothing_stands_in_the_way_where_traces_are_off() -> None:
    assert open_traces("", "s") is None
    script = (
        "import sys, wardround.server.scheduling.process, wardround.server.app\n"
        "import wardround.simulations.experiment.simulate, wardround.client.daemon.daemon\n"
        "known = ('opentelemetry', 'prometheus_client', 'mlflow', 'wandb', 'tensorboard')\n"
        "print([name for name in known if name in sys.modules])\n"
        "print('wardround.server.scheduling.round_trace' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_a_missing_package_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    said: list[str] = []
    assert open_traces("http://127.0.0.1:1", "s", said.append) is None
    assert "pip install" in said[0]
