"""Whole runs through Flower's own engine on Ray, with real processes."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

pytest.importorskip("ray", reason="Ray is not installed: make install")
psutil = pytest.importorskip("psutil", reason="psutil is not installed; Ray brings it")
pytestmark = pytest.mark.slow

MARK = "WARDROUND_TEST_RAY"


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
