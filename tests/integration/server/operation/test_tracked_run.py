"""``wardround runs track``: trackers at an operator's desk hold what a run's history has."""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.studies.tiny_study import Said

from wardround.common.metrics.task_sums import MetricValue
from wardround.common.monitoring.trackers.course import name_of
from wardround.server.checkpoints.history import (
    Measurement,
    RefusalRecord,
    RoundRecord,
    SiteRecord,
    append_record,
    read_records,
)
from wardround.server.operators.grpc_server import operators_served
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import StudyQueue, stop_run
from wardround.server.service.installation import init_server

Values = dict[tuple[str, str], dict[int, float]]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("s") / "server"
    init_server(place, "Demo", ["localhost"], "127.0.0.1", 8443)
    with operators_served(place):
        yield place


def measured(number: int) -> tuple[Measurement, ...]:
    """South's policy lets no metric out; one class has no case at north."""
    auroc = MetricValue("auroc", "", 0.1 + number / 7, 20, 0.0, 0.0)
    of_class = MetricValue("f1", "grey/matter", 0.3 + number / 9, 20, 0.0, 0.0)
    absent = MetricValue("f1", "white", math.nan, 0, 0.0, 0.0)
    values = (auroc, of_class, absent)
    return (
        Measurement("north", "validation", values),
        Measurement("south", "validation", ()),
        Measurement("all sites", "validation", values),
    )


def add_round(run: RunFolder, number: int, state: str = "running") -> None:
    sites = tuple(SiteRecord(name, 9, 4, 1.5, 100, 50 + number, 0.5) for name in ("north", "south"))
    refusals = (RefusalRecord("east", "policy"),)
    record = RoundRecord(number, number - 1, 2.25, sites, refusals, measured(number - 1))
    append_record(run.checkpoints / "history.jsonl", record)
    run.put_status(RunStatus(run.name, "my-study", "d", state, number, 10, "auroc", 0.5))


def in_history(run: RunFolder) -> Values:
    found: Values = {}
    for record in read_records(run.checkpoints / "history.jsonl"):
        add_measured(found, record)
        for site in record.sites:
            for what in ("bytes_up", "bytes_down", "seconds"):
                key = site.site, f"federated/round/{what}"
                found.setdefault(key, {})[record.round] = float(getattr(site, what))
        whole = {"seconds": record.seconds, "sites": 2.0, "refusals": 1.0}
        for what, number in whole.items():
            found.setdefault(("", f"federated/round/{what}"), {})[record.round] = number
    return found


def add_measured(found: Values, record: RoundRecord) -> None:
    for one in record.measurements:
        site = "" if one.site == "all sites" else one.site
        for value in one.values:
            if math.isfinite(value.value):
                name = name_of("federated", one.split, value.metric, value.class_name)
                found.setdefault((site, name), {})[record.measured_round] = value.value


def in_mlflow(folder: Path) -> tuple[Values, dict[str, str]]:
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = MlflowClient((folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("wardround")
    found: Values = {}
    states = {}
    for run in client.search_runs([experiment.experiment_id]):
        site = run.data.tags.get("wardround.site", "")
        states[run.info.run_name] = run.info.status
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            found[site, name] = {one.step: one.value for one in history}
            assert len(found[site, name]) == len(history)
    return found, states


def test_mlflow_holds_what_the_history_has_while_a_run_goes_on_and_after(
    wardround: Callable[..., Said], server: Path, tmp_path: Path
) -> None:
    study, user_file = tmp_path / "study.toml", tmp_path / "user.toml"
    assert wardround("study", "new", study).code == 0
    user_file.write_text('[track.mlflow]\naddress = "mlruns"\n', encoding="utf-8")
    said = wardround("study", "submit", study, "--server", server, "--json")
    name = json.loads(said.out)["run"]
    queue, run = StudyQueue(server), RunFolder(server, name)
    queue.started(name)
    run.checkpoints.mkdir(parents=True)
    words = ("runs", "track", name, "--server", server, "--track", user_file)
    for number in range(1, 4):
        add_round(run, number)
        told = wardround(*words, "--once")
        assert (told.code, told.out) == (0, "Told.\n"), told.err
    values, states = in_mlflow(tmp_path)
    assert set(states.values()) == {"RUNNING"}
    assert values == in_history(run)
    add_round(run, 4, "stopped")
    stop_run(server, name)
    queue.stopped(name)
    assert wardround(*words).code == 0  # it ends, for the run is over
    values, states = in_mlflow(tmp_path)
    assert values == in_history(run)
    assert states == {name: "KILLED", "north": "KILLED", "south": "KILLED"}


def test_a_round_that_is_not_committed_is_not_told(
    wardround: Callable[..., Said], server: Path, tmp_path: Path
) -> None:
    study, user_file = tmp_path / "study.toml", tmp_path / "user.toml"
    wardround("study", "new", study)
    user_file.write_text('[track.mlflow]\naddress = "mlruns"\n', encoding="utf-8")
    said = wardround("study", "submit", study, "--server", server, "--json")
    run = RunFolder(server, json.loads(said.out)["run"])
    StudyQueue(server).started(run.name)
    run.checkpoints.mkdir(parents=True)
    add_round(run, 1)
    before = in_history(run)
    status = run.status()
    add_round(run, 2)
    assert status is not None
    run.put_status(status)  # the commit of round 2 has not come yet
    words = ("runs", "track", run.name, "--server", server, "--track", user_file, "--once")
    assert wardround(*words).code == 0
    assert in_mlflow(tmp_path)[0] == before
