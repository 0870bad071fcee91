"""A real server and two daemons: what Prometheus, a receiver of traces and MLflow get of a run."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.integration.server.operation.test_tracked_run import in_mlflow
from tests.support.studies.tiny_runs import write_tiny_study
from tests.support.studies.tiny_study import Said

from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.local_federation.processes import LocalFederation, free_port

pytestmark = pytest.mark.long
Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(port: int) -> Samples:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    question = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=accept)
    with urllib.request.urlopen(question, timeout=20) as reply:
        text = reply.read().decode()
    return {
        (one.name, tuple(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def received() -> tuple[HTTPServer, list[bytes]]:
    """Return a receiver of OTLP on loopback, and what it was sent."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *about: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, bodies


def add_keys(path: Path, **keys: str) -> None:
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True)
    old = [line for line in kept if line.partition(" =")[0] not in keys]
    path.write_text(lines + "".join(old), encoding="utf-8")


def test_a_run_is_seen_by_prometheus_traces_and_mlflow(
    wardround: Callable[..., Said], tmp_path: Path
) -> None:
    """By hand: 3 rounds of two sites, 40 s on a busy machine."""
    write_tiny_study(tmp_path, federation__rounds=3)
    split = wardround("split", tmp_path / "study.toml", "--out", tmp_path / "split")
    assert split.code == 0, split.err
    receiver, bodies = received()
    ports = {name: free_port() for name in ("server", "north", "south")}
    (tmp_path / "user.toml").write_text('[track.mlflow]\naddress = "mlruns"\n', encoding="utf-8")
    with LocalFederation(tmp_path, {"OMP_NUM_THREADS": "1"}) as federation:
        federation.make_server()
        traces = f"http://127.0.0.1:{receiver.server_port}"
        metrics = f"127.0.0.1:{ports['server']}"
        add_keys(federation.server / "server.toml", metrics=metrics, traces=traces)
        federation.start_server()
        for site in ("north", "south"):
            folder = tmp_path / "split" / "sites" / site
            add_keys(folder / "site.toml", metrics=f"127.0.0.1:{ports[site]}")
            federation.join(folder)
            federation.start_site(folder)
        words = ("study", "submit", tmp_path / "study.toml", "--server", federation.server)
        name = json.loads(wardround(*words, "--json").out)["run"]
        told = wardround(
            *("runs", "track", name, "--server", federation.server),
            *("--track", tmp_path / "user.toml"),
        )
        assert (told.code, told.out) == (0, "Told.\n"), told.err
        time.sleep(1.5)  # the daemons' own numbers are kept for a second
        server, north = scraped(ports["server"]), scraped(ports["north"])
        run = RunFolder(federation.server, name)
    receiver.shutdown()
    records = [one for one in read_records(run.checkpoints / "history.jsonl") if one.sites]
    assert len(records) == 3
    check_server(server, records)
    check_site(north)
    check_traces(bodies)
    values, states = in_mlflow(tmp_path)
    assert set(states.values()) == {"FINISHED"}
    seconds = {record.round: record.seconds for record in records}
    assert values["", "federated/round/seconds"] == seconds


def check_server(server: Samples, records: list[RoundRecord]) -> None:
    assert server["wardround_server_updates_accepted_total", ()] == 6
    assert server["wardround_server_round_duration_seconds_count", ()] == 3
    assert server["wardround_server_link_up", ()] == 1
    assert server["wardround_server_sites_connected", ()] == 2
    assert server["wardround_server_site_accepted_total", ("north",)] == 3
    assert server["wardround_server_memory_bytes", ("link",)] > 1e6
    assert server["wardround_server_unmeasured_parts", ()] == 0
    sent = sum(site.bytes_up for record in records for site in record.sites)
    assert server["wardround_server_transferred_bytes_total", ("from_sites",)] == sent


def check_site(north: Samples) -> None:
    assert north["wardround_site_connected", ()] == 1
    assert north["wardround_site_answers_total", ()] >= 4
    assert north["wardround_site_refusals_total", ("policy",)] == 0
    assert north["wardround_site_sent_bytes_total", ()] > 1000
    assert north["wardround_site_certificate_expiry_timestamp_seconds", ()] > time.time()
    assert north["wardround_site_unmeasured_parts", ()] == 0


def check_traces(bodies: list[bytes]) -> None:
    spans = [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    rounds = {span.trace_id for span in spans if span.name == "round"}
    assert len(rounds) == 3
    for name, count in (("aggregate", 3), ("commit", 3), ("train", 6)):
        assert sum(span.name == name for span in spans) == count, name
    assert {span.trace_id for span in spans} == rounds
    said = " ".join(str(span.attributes) for span in spans)
    assert "site.toml" not in said
    assert "manifest" not in said
