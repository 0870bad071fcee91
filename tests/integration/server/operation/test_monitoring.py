"""What Prometheus is told by a server and by a site, and the files that name those metrics."""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from wardround.client.daemon.metrics import PREFIX as SITE
from wardround.client.daemon.metrics import BudgetWatch, SiteMetrics
from wardround.client.daemon.status import StatusBoard, fresh_status
from wardround.client.site.folder import Site, SiteFile
from wardround.common.monitoring.prometheus import Measurements, Part, registry_of
from wardround.server.checkpoints.history import (
    RefusalRecord,
    RoundRecord,
    SiteRecord,
    append_record,
)
from wardround.server.operators.run_summaries import HISTORY_FILE
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.store import changing
from wardround.server.service.installation import init_server
from wardround.server.service.metrics import PREFIX as SERVER
from wardround.server.service.metrics import Histories, ServerMetrics, code_of

PACKAGING = Path(__file__).parents[4] / "packaging"
LOOPBACK, PUBLIC = "127.0.0.1:9464", "0.0.0.0:9464"
_FUNCTIONS = {
    "delta",
    "time",
    "rate",
    "increase",
    "sum",
    "by",
    "le",
    "on",
    "and",
    "histogram_quantile",
}


@dataclass
class Server:
    folder: Path
    histories: Histories

    def samples(self, address: str = LOOPBACK) -> dict[tuple[str, tuple[str, ...]], float]:
        processes = {"supervisor": (1,), "link": (), "study": ()}
        metrics = ServerMetrics(self.folder, address, lambda: processes, self.histories)
        return samples_of(SERVER, metrics.parts())


def samples_of(prefix: str, parts: Iterable[Part]) -> dict[tuple[str, tuple[str, ...]], float]:
    from prometheus_client.exposition import generate_latest

    text = generate_latest(registry_of(Measurements(prefix, tuple(parts)))).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server with a run at work, whose history had a round before the server began."""
    folder = tmp_path / "server"
    init_server(folder, "lab", ["localhost"], "127.0.0.1", 8443)
    row = ("tumour-1", "tumour", "d" * 64, "running", "run", 1, time.time(), "")
    with changing(folder) as connection:
        connection.execute(
            "INSERT INTO runs (run, study, digest, state, wanted, place, submitted, reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
    run = RunFolder(folder, "tumour-1")
    run.checkpoints.mkdir(parents=True)
    run.put_status(RunStatus("tumour-1", "tumour", "d" * 64, "running", round=2, rounds=9))
    written(folder, 1)
    return Server(folder, Histories(folder))


def written(folder: Path, number: int, *refusals: RefusalRecord) -> None:
    sites = tuple(SiteRecord(name, 10, 4, 1.0, 1000, 500, 0.5) for name in ("north", "south"))
    record = RoundRecord(number, number - 1, 20.0, sites, refusals)
    append_record(RunFolder(folder, "tumour-1").checkpoints / HISTORY_FILE, record)


def test_a_server_counts_what_is_written_while_it_runs(server: Server) -> None:
    policy = RefusalRecord("east", "policy: a rule of the hospital's policy does not allow it")
    written(server.folder, 2, policy, RefusalRecord("west", "\x1b[31m" * 99))
    found = server.samples()
    assert found[f"{SERVER}_updates_accepted_total", ()] == 2
    assert found[f"{SERVER}_updates_refused_total", ("policy",)] == 1
    assert found[f"{SERVER}_updates_refused_total", ("check",)] == 1
    assert found[f"{SERVER}_transferred_bytes_total", ("to_sites",)] == 2000
    assert found[f"{SERVER}_transferred_bytes_total", ("from_sites",)] == 1000
    assert found[f"{SERVER}_round_duration_seconds_count", ()] == 1
    assert found[f"{SERVER}_round_duration_seconds_bucket", ("60.0",)] == 1
    assert found[f"{SERVER}_round_duration_seconds_bucket", ("15.0",)] == 0
    assert found[f"{SERVER}_run_rounds_committed", ("tumour-1",)] == 2
    assert found[f"{SERVER}_runs", ("running",)] == 1
    assert found[f"{SERVER}_sites_connected", ()] == 0
    assert found[f"{SERVER}_link_up", ()] == 0
    assert found[f"{SERVER}_unmeasured_parts", ()] == 0
    expires = found[f"{SERVER}_certificate_expiry_timestamp_seconds", ()]
    assert 360 < (expires - time.time()) / 86_400 < 366
    assert found[f"{SERVER}_site_accepted_total", ("north",)] == 1


def test_a_line_that_is_being_written_or_was_cut_off_is_not_counted(server: Server) -> None:
    path = RunFolder(server.folder, "tumour-1").checkpoints / HISTORY_FILE
    whole = path.read_bytes()
    written(server.folder, 2)
    two = path.read_bytes()
    path.write_bytes(two[:-20])
    assert server.samples()[f"{SERVER}_updates_accepted_total", ()] == 0
    path.write_bytes(two)
    assert server.samples()[f"{SERVER}_updates_accepted_total", ()] == 2
    path.write_bytes(whole)
    assert server.samples()[f"{SERVER}_updates_accepted_total", ()] == 2


def test_no_site_is_named_on_an_address_that_others_reach(server: Server) -> None:
    written(server.folder, 2)
    assert any("north" in labels for _, labels in server.samples())
    assert not any("north" in labels for _, labels in server.samples(PUBLIC))


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("approval: nobody at the hospital has approved the study", "approval"),
        ("its answer to round 3 came too late: not counted.", "late"),
        ("it is not connected", "absent"),
        ("the update is not finite: not counted.", "check"),
    ],
)
def test_a_reason_is_one_of_few_words(reason: str, code: str) -> None:
    assert code_of(reason) == code


@pytest.fixture
def board() -> StatusBoard:
    return StatusBoard(fresh_status("north", "fl.example.org:8443", "0.1.0", 1))


def site_samples(
    tmp_path: Path, board: StatusBoard, ratios: dict[str, float]
) -> dict[tuple[str, tuple[str, ...]], float]:
    site = Site(tmp_path, SiteFile(name="north"))
    budget = BudgetWatch(tmp_path)
    budget.ratios = ratios
    return samples_of(SITE, SiteMetrics(site, board, budget).parts())


def test_a_site_counts_answers_refusals_and_bytes(tmp_path: Path, board: StatusBoard) -> None:
    board.heard("no-connection")
    board.heard("")
    board.end("")
    board.end("policy")
    board.end("a word of another version\n{} 1")
    board.give_up("lost")
    board.note_sent(1234)
    board.note_worker(7, 3)
    found = site_samples(tmp_path, board, {"train": 0.25})
    assert found[f"{SITE}_connected", ()] == 1
    assert time.time() - found[f"{SITE}_last_contact_timestamp_seconds", ()] < 60
    assert found[f"{SITE}_connection_failures_total", ("no-connection",)] == 1
    assert found[f"{SITE}_answers_total", ()] == 3
    assert found[f"{SITE}_refusals_total", ("policy",)] == 1
    assert found[f"{SITE}_refusals_total", ("other",)] == 1
    assert found[f"{SITE}_troubles_total", ("lost",)] == 1
    assert found[f"{SITE}_sent_bytes_total", ()] == 1234
    assert found[f"{SITE}_worker_restarts_total", ()] == 2
    assert found[f"{SITE}_privacy_budget_spent_ratio", ("train",)] == 0.25


def test_names_follow_the_conventions(server: Server, tmp_path: Path, board: StatusBoard) -> None:
    ours = {name for name, _ in (*server.samples(), *site_samples(tmp_path, board, {"train": 1}))}
    for name in (name for name in ours if name.startswith("wardround_")):
        assert re.fullmatch(r"wardround_(server|site)_[a-z_]+", name)
        assert not re.search(r"(milliseconds|minutes|hours|days|kilobytes|megabytes)", name)


def expressions() -> list[str]:
    dashboard = json.loads((PACKAGING / "grafana/wardround.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((PACKAGING / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    panels = [one["expr"] for panel in dashboard["panels"] for one in panel.get("targets", [])]
    return panels + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def test_dashboard_and_alerts_name_metrics_that_exist(
    server: Server, tmp_path: Path, board: StatusBoard
) -> None:
    written(server.folder, 2, RefusalRecord("east", "policy"))
    samples = {**server.samples(), **site_samples(tmp_path, board, {"train": 1.0})}
    known = {name for name, _ in samples} | {"up"}
    # Only where a site has joined, and where this site has.
    known |= {f"{SERVER}_site_certificate_expiry_timestamp_seconds", f"{SERVER}_site_connected"}
    known |= {f"{SITE}_certificate_expiry_timestamp_seconds"}
    for expression in expressions():
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)|on\(\)|\"[^\"]*\"", "", expression)
        names = set(re.findall(r"[a-z_]{2,}", bare)) - _FUNCTIONS
        assert names, expression
        assert names <= known, names - known


def test_expressions_are_balanced_and_files_load() -> None:
    for expression in expressions():
        depth = 0
        for letter in expression:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            assert depth >= 0, expression
        assert depth == 0, expression
        for pair in ("{}", "[]"):
            assert expression.count(pair[0]) == expression.count(pair[1])
    scrape = yaml.safe_load((PACKAGING / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["rule_files"] == ["alerts.yml"]
    assert {one["job_name"] for one in scrape["scrape_configs"]} == {
        "wardround-server",
        "wardround-site",
    }
    alerts = yaml.safe_load((PACKAGING / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        assert {"summary", "remedy"} <= set(rule["annotations"])
