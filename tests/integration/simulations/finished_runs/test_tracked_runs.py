"""Trackers beside a simulated run: what they hold is what the run folder says, and no more."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.studies.tiny_runs import write_tiny_study
from tests.support.studies.tiny_study import Said

from wardround.common.files.tables import read_table
from wardround.common.monitoring.trackers.course import name_of
from wardround.common.monitoring.trackers.tensorboard_tracker import scalars_in
from wardround.server.checkpoints.history import read_records
from wardround.simulations.experiment.tracking import beside
from wardround.simulations.run_files.folder import MetricRow

REPOSITORY = Path(__file__).parents[4]
Values = dict[tuple[str, str], list[tuple[int, float]]]


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "user.toml"
    tables = '[track.mlflow]\naddress = "mlruns"\n[track.tensorboard]\nfolder = "boards"\n'
    path.write_text(tables, encoding="utf-8")
    return path


def in_mlflow(folder: Path) -> dict[str, Values]:
    """Return what stands in a folder of MLflow: by study's run, then by site and name."""
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = MlflowClient((folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("wardround")
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    found: dict[str, Values] = {}
    for run in runs:
        parent = run.data.tags.get("mlflow.parentRunId")
        values = found.setdefault(names[parent or run.info.run_id], {})
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            site = run.data.tags.get("wardround.site", "")
            values[site, name] = [(one.step, one.value) for one in history]
    return found


def in_run(run: Path) -> Values:
    """Return what metrics.csv and the histories say, likewise."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in read_table(run / "metrics.csv", MetricRow):
        site = "" if row.site in ("all sites", "mean of sites") else row.site
        name = name_of(row.model, row.split, row.metric, row.class_name)
        assert row.round not in found.setdefault((site, name), {})  # no number hides another
        found[site, name][row.round] = row.value
    for path in run.glob("checkpoints/*/history.jsonl"):
        for record in read_records(path):
            for site in record.sites:
                for what in ("bytes_up", "bytes_down", "seconds", "training_loss", "updates"):
                    key = site.site, f"{path.parent.name}/round/{what}"
                    if site.site != "pooled":
                        found.setdefault(key, {})[record.round] = float(getattr(site, what))
    finite = {
        key: sorted((step, value) for step, value in values.items() if math.isfinite(value))
        for key, values in found.items()
    }
    return {key: values for key, values in finite.items() if values}


def test_mlflow_and_tensorboard_hold_what_the_run_folder_says(
    wardround: Callable[..., Said], tmp_path: Path, user_file: Path
) -> None:
    write_tiny_study(tmp_path)
    run = tmp_path / "first"
    words = ("simulate", tmp_path / "study.toml", "--out", run, "--quiet", "--track", user_file)
    said = wardround(*words)
    assert (said.code, said.err) == (0, "")
    wanted, (name, held) = in_run(run), *in_mlflow(tmp_path).items()
    whole = {key: sorted(values) for key, values in held.items()}
    own = {"federated/round/seconds", "federated/round/sites", "federated/round/refusals"}
    assert name == "first"
    assert {key: values for key, values in whole.items() if key in wanted} == wanted
    rest = {key for key in whole if key not in wanted}
    assert all(site == "" and "/round/" in name for site, name in rest)
    assert {name for _, name in rest} >= own
    for place in (tmp_path / "boards").glob("*/*"):
        site = "" if place.name == "all sites" else place.name
        board = {(name, step): value for (name, step), value in scalars_in(place).items()}
        of_site = {
            (name, step): pytest.approx(value, rel=1e-6)
            for (one, name), values in whole.items()
            for step, value in values
            if one == site
        }
        assert board == of_site
    again = wardround("track", run, "--track", user_file)
    assert (again.code, again.out) == (0, "Told.\n")
    assert {k: sorted(v) for k, v in in_mlflow(tmp_path)["first"].items()} == whole


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def test_a_tracker_that_hangs_costs_the_run_a_sentence(
    wardround: Callable[..., Said],
    tmp_path: Path,
    silent_server: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beside, "PATIENCE_SECONDS", 0.5)
    write_tiny_study(tmp_path, simulation__compare=False, federation__rounds=1)
    address = f"http://me:S3CRETTOKEN@127.0.0.1:{silent_server}"
    user_file = tmp_path / "user.toml"
    user_file.write_text(f'[track.mlflow]\naddress = "{address}"\n', encoding="utf-8")
    run = tmp_path / "run"
    words = ("simulate", tmp_path / "study.toml", "--out", run, "--quiet", "--track", user_file)
    said = wardround(*words)
    assert said.code == 0
    assert said.err == (
        "The trackers were not done 0.5 s after the run. Tell the rest with: "
        f"wardround track {run}\n"
    )
    texts = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not [text for text in texts if b"S3CRETTOKEN" in text]


def test_a_study_cannot_say_where_its_numbers_go(
    wardround: Callable[..., Said], tmp_path: Path
) -> None:
    study = tmp_path / "study.toml"
    write_tiny_study(tmp_path)
    said = wardround("simulate", study, "--set", "track.mlflow.address=http://evil.example")
    assert said.code == 2
    assert "cannot say where its numbers are sent" in " ".join(said.err.split())
    text = study.read_text(encoding="utf-8")
    table = '[track.mlflow]\naddress = "http://evil.example"\n'
    study.write_text(f"{text}\n{table}", encoding="utf-8")
    said = wardround("study", "check", study)
    assert said.code == 2
    assert "Move [track] to a file of your own" in " ".join(said.err.split())


def test_nothing_is_told_from_inside_a_hospital() -> None:
    told = re.compile(r"monitoring\.trackers|mlflow|wandb|tensorboard|WARDROUND_USER_FILE")
    modules = (REPOSITORY / "client").rglob("*.py")
    assert not [path for path in modules if told.search(path.read_text(encoding="utf-8"))]


def test_a_command_that_tells_trackers_says_where_none_is_named(
    wardround: Callable[..., Said], tmp_path: Path
) -> None:
    said = wardround("track", tmp_path)
    assert said.code == 2
    assert "no tracker is named" in said.err


@pytest.mark.long
def test_a_run_that_was_stopped_goes_on_in_the_same_place(
    tmp_path: Path, user_file: Path, hearing_signals: Callable[[], None]
) -> None:
    """``--seeds`` and ``--resume`` as processes; by hand: 2 runs, each step once, 40 s."""
    write_tiny_study(tmp_path, federation__rounds=12, simulation__compare=False)
    command = [sys.executable, "-m", "wardround.cli", "simulate", "--track", str(user_file)]
    front = [sys.executable, "-c", "from wardround.cli import main; main()", *command[3:]]
    words = [*front, "study.toml", "--out", "series", "--seeds", "0,1", "--engine", "in-process"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=hearing_signals
    )
    history = tmp_path / "series/runs/seed-0/checkpoints/federated/history.jsonl"
    until = time.monotonic() + 60
    while not history.exists() or history.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    stopped = in_mlflow(tmp_path)
    assert set(stopped) == {"series-seed-0"}
    again = [*front, "--resume", "series", "--engine", "in-process"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = in_mlflow(tmp_path)
    assert set(held) == {"series-seed-0", "series-seed-1"}
    for name, values in held.items():
        wanted = in_run(tmp_path / "series/runs" / name.removeprefix("series-"))
        own = {key: sorted(one) for key, one in values.items() if key in wanted}
        assert own == wanted


@pytest.mark.long
def test_offline_nothing_is_sent_from_this_machine(tmp_path: Path) -> None:
    """Every connection of MLflow, TensorBoard and wandb; by hand: local sockets alone, 6 s."""
    if not Path("/usr/bin/strace").exists():
        pytest.skip("strace is absent")
    tables = (
        '[track.mlflow]\naddress = "mlruns"\n[track.tensorboard]\nfolder = "b"\n'
        '[track.wandb]\nfolder = "."\n'
    )
    (tmp_path / "user.toml").write_text(tables, encoding="utf-8")
    script = (
        "from pathlib import Path\n"
        "from wardround.common.monitoring.trackers.course import Course, Point\n"
        "from wardround.common.monitoring.trackers.tracking import Tracking\n"
        "from wardround.common.monitoring.trackers.user_file import read_user_file\n"
        "tracking = Tracking(read_user_file(Path('user.toml')).track)\n"
        "point = Point('', 'federated/test/dice', -1, 0.5)\n"
        "tracking.write(Course('0' * 32, 'run', {}, {}, (point,), 'finished'))\n"
        "tracking.close()\n"
        "assert tracking.problems == (), tracking.problems\n"
    )
    calls = tmp_path / "calls.txt"
    traced = ["/usr/bin/strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", calls]
    done = subprocess.run(
        [*traced, sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False
    )
    if b"ptrace" in done.stderr:
        pytest.skip("this machine lets no process be traced")
    assert done.returncode == 0, done.stderr
    addresses = re.findall(r"sin6?_addr[^)]*\"([^\"]+)\"", calls.read_text(encoding="utf-8"))
    assert [one for one in addresses if not one.startswith("127.") and one != "::1"] == []
    assert calls.stat().st_size > 0  # wandb's own process is spoken to over a local socket
