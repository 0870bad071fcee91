"""Whole runs through Flower's own engine on Ray, with real processes."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file
from tests.support.places.ray_nodes import RayNodes, ray_nodes
from tests.support.stage import table_study, write_table

pytest.importorskip("ray", reason="Ray is not installed: make install")
psutil = pytest.importorskip("psutil", reason="psutil is not installed; Ray brings it")
pytestmark = pytest.mark.slow

MARK = "WARDROUND_TEST_RAY"
# Sites that hear no signal and do not answer, under a run that SIGTERM ends.
STUCK = """
import pathlib, sys, time
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from wardround.common.flower.ray import runtime
from wardround.common.runtime.system.signals import ended_like_ctrl_c

class Sites(ClientApp):
    def __call__(self, message, context):
        import pathlib, signal, time
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        pathlib.Path(begun).touch()
        time.sleep(600)

begun = sys.argv[1]
runtime.STOP_SECONDS = 1.0
with ended_like_ctrl_c(), runtime.open_ray(Sites(), runtime.RayPlan(sites=2, cpus=1)) as grid:
    nodes = grid.get_node_ids()
    grid.push_messages([grid.create_message(RecordDict(), "train", one, "0") for one in nodes])
    while True:  # it says so where Ray does not start
        list(grid.pull_messages(()))
        time.sleep(0.1)
"""


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Tell which processes started by this test are still there, by a variable they inherit."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)

    def find() -> list[str]:
        found = []
        for process in psutil.process_iter(["pid", "status", "name", "environ"]):
            facts = process.info
            is_dead = facts["status"] == psutil.STATUS_ZOMBIE or facts["pid"] == os.getpid()
            if not is_dead and (facts["environ"] or {}).get(MARK) == mark:
                found.append(facts["name"])
        return found

    def wait(seconds: float = 20.0) -> list[str]:
        # A worker whose raylet is gone needs a moment to leave a busy machine.
        until = time.monotonic() + seconds
        while (left := find()) and time.monotonic() < until:
            time.sleep(0.2)
        return left

    return wait


def listening() -> set[str]:
    """Return the addresses at which this process and its children can be reached."""
    this = psutil.Process()
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_ray_trains_the_model_that_one_process_trains(
    tiny_study,
    wardround: Callable[..., object],
    tmp_path: Path,
    left_over: Callable[..., list[str]],
) -> None:
    models = {}
    for engine in ("in-process", "ray"):
        out = tmp_path / engine
        said = wardround(
            *("simulate", tiny_study.study, "--out", out, "--engine", engine),
            *("--threads", 1, "--no-compare", "--quiet"),
        )
        assert said.code == 0, said.err
        models[engine] = load_file(out / "models" / "federated.safetensors")
    assert not left_over()
    assert models["ray"].keys() == models["in-process"].keys()
    for name, expected in models["in-process"].items():
        assert abs(models["ray"][name] - expected).max() <= 1e-5, name


@pytest.mark.long
def test_a_run_over_ray_that_is_told_to_end_has_time_for_it_and_says_how_it_goes_on(
    tiny_study, tmp_path: Path, left_over: Callable[..., list[str]], hearing_signals
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wardround.cli", "simulate", str(tiny_study.study)),
            *("--out", str(run), "--engine", "ray", "--rounds", "2000", "--no-compare"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hearing_signals,
    )
    assert process.stderr is not None
    shown: list[str] = []
    for line in process.stderr:
        shown.append(line)
        if "training together: round 1 " in line:
            process.terminate()
            break
    shown.append(process.communicate(timeout=90)[1])
    said = "".join(shown)
    assert process.returncode == 130, said
    assert "SIGTERM received" not in said, "Ray's own handler writes so, and aborts soon after"
    assert f"go on with: wardround simulate --resume {run}" in said
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert not left_over()


@pytest.mark.long
def test_a_site_that_raises_answers_with_an_error_and_the_others_go_on(
    left_over: Callable[..., list[str]],
) -> None:
    from wardround.common.flower.ray.runtime import PARTITION_ID, RayPlan, open_ray

    class Sites(ClientApp):  # defined here, so that it travels to the actors by value
        def __call__(self, message: Message, context: Context) -> Message:
            number = int(context.node_config[PARTITION_ID])
            if number == 1:
                raise ValueError
            return Message(RecordDict({"n": ConfigRecord({"n": number})}), reply_to=message)

    with open_ray(Sites(), RayPlan(sites=3, cpus=2)) as grid:
        nodes = list(grid.get_node_ids())
        assert len(nodes) == 3
        for turn in range(2):
            instructions = [
                grid.create_message(RecordDict(), "train", node, str(turn)) for node in nodes
            ]
            replies = list(grid.send_and_receive(instructions, timeout=60))
            numbers = [reply.content["n"]["n"] for reply in replies if not reply.has_error()]
            assert sorted(numbers) == [0, 2]
            assert sum(reply.has_error() for reply in replies) == 1
        assert left_over(0)  # else the count below would count nothing
        assert listening() == {"127.0.0.1"}
    assert not left_over()


@pytest.mark.long
def test_a_run_ended_by_sigterm_ends_also_sites_that_are_stuck(
    tmp_path: Path, left_over: Callable[..., list[str]]
) -> None:
    begun = tmp_path / "begun"
    running = subprocess.Popen([sys.executable, "-c", STUCK, begun], stderr=subprocess.PIPE)
    try:
        while not begun.exists():
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
        running.terminate()
        said = running.communicate(timeout=60)[1].decode()
    finally:
        running.kill()
    assert not left_over(0)
    assert "cluster" not in said, "it looks for no other Ray"
    assert said.splitlines()[-1] == "KeyboardInterrupt"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    with ray_nodes(tmp_path) as made:
        yield made


def simulate(study: Path, out: Path, *machine: str) -> subprocess.Popen[str]:
    words = ("simulate", str(study), "--out", str(out), "--threads", "1", *machine)
    return subprocess.Popen(
        [sys.executable, "-m", "wardround.cli", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.long
def test_two_nodes_train_the_model_of_one_process_also_when_one_of_them_goes(
    tmp_path: Path, nodes: RayNodes
) -> None:
    """A minute: two nodes of a cluster, both work; one is killed; nothing of the model changes."""
    manifest = write_table(tmp_path, 90, ("north", "south", "west"))
    study = tmp_path / "study.toml"
    study.write_text(table_study("nodes", manifest, rounds=12, strategy="scaffold").to_toml())
    alone = simulate(study, tmp_path / "alone", "--engine", "in-process")
    nodes.start()
    nodes.start()
    said = alone.communicate()[1]
    assert alone.returncode == 0, said
    cluster = ("--engine", "ray", "--ray-address", f"127.0.0.1:{nodes.port}")
    running = simulate(study, tmp_path / "both", *cluster)
    history = tmp_path / "both" / "checkpoints" / "federated" / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < 4:
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.02)
    spent = [sum(one.cpu_times().user for one in nodes.workers(number)) for number in (0, 1)]
    nodes.kill(1)
    said = running.communicate()[1]
    assert min(spent) > 0.0, "both nodes had sites to work for"
    assert running.returncode == 0, said
    assert "is left out" not in said, "its work is done again by the other node"
    log = (tmp_path / "both" / "log.jsonl").read_text()
    assert "a process of the Ray cluster has gone" in log
    expected = load_file(tmp_path / "alone" / "models" / "federated.safetensors")
    found = load_file(tmp_path / "both" / "models" / "federated.safetensors")
    for name, tensor in expected.items():
        assert abs(found[name] - tensor).max() <= 1e-6, name


@pytest.mark.long
def test_a_cluster_that_goes_ends_the_run_in_words_and_another_engine_goes_on(
    tmp_path: Path, nodes: RayNodes
) -> None:
    """Half a minute."""
    manifest = write_table(tmp_path, 90, ("north", "south", "west"))
    study = tmp_path / "study.toml"
    study.write_text(table_study("nodes", manifest, rounds=40).to_toml())
    nodes.start()
    cluster = ("--engine", "ray", "--ray-address", f"127.0.0.1:{nodes.port}")
    running = simulate(study, tmp_path / "run", *cluster)
    history = tmp_path / "run" / "checkpoints" / "federated" / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < 3:
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.02)
    nodes.kill(0)
    said = running.communicate()[1]
    assert running.returncode == 3, said
    assert "Traceback" not in said.splitlines()[-1]
    again = subprocess.run(
        [*(sys.executable, "-m", "wardround.cli", "simulate"), "--resume", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
