"""Whole runs through Flower's own engine on Ray, with real processes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

pytest.importorskip("ray", reason="Ray is not installed: pip install 'wardround[ray]'")
psutil = pytest.importorskip("psutil", reason="psutil is not installed; Ray brings it")
pytestmark = pytest.mark.slow

RAY_WORDS = ("raylet", "gcs_server", "ray::", "ray/dashboard", "ray/_private")


def ray_processes() -> set[int]:
    found = set()
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        is_dead = process.info["status"] == psutil.STATUS_ZOMBIE
        if any(word in words for word in RAY_WORDS) and not is_dead:
            found.add(process.pid)
    return found


def left_over(before: set[int], seconds: float = 20.0) -> set[int]:
    """A worker whose raylet is gone needs a moment to leave a busy machine."""
    until = time.monotonic() + seconds
    while (left := ray_processes() - before) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def test_ray_trains_the_model_that_one_process_trains(
    tiny_study, wardround: Callable[..., object], tmp_path: Path
) -> None:
    before = ray_processes()
    models = {}
    for engine in ("in-process", "ray"):
        out = tmp_path / engine
        said = wardround(
            *("simulate", tiny_study.study, "--out", out, "--engine", engine),
            *("--threads", 1, "--no-compare", "--quiet"),
        )
        assert said.code == 0, said.err
        models[engine] = load_file(out / "models" / "federated.safetensors")
    assert not left_over(before)
    assert models["ray"].keys() == models["in-process"].keys()
    for name, expected in models["in-process"].items():
        assert abs(models["ray"][name] - expected).max() <= 1e-5, name


def test_a_site_that_raises_answers_with_an_error_and_the_others_go_on() -> None:
    from wardround.common.flower.ray_runtime import PARTITION_ID, RayPlan, open_ray

    class Sites(ClientApp):  # defined here, so that it travels to the actors by value
        def __call__(self, message: Message, context: Context) -> Message:
            number = int(context.node_config[PARTITION_ID])
            if number == 1:
                raise ValueError
            return Message(RecordDict({"n": ConfigRecord({"n": number})}), reply_to=message)

    before = ray_processes()
    with open_ray(Sites(), RayPlan(sites=3, cpus=2)) as grid:
        nodes = list(grid.get_node_ids())
        assert len(nodes) == 3
        for turn in range(2):
            orders = [grid.create_message(RecordDict(), "train", node, str(turn)) for node in nodes]
            replies = list(grid.send_and_receive(orders, timeout=60))
            numbers = [reply.content["n"]["n"] for reply in replies if not reply.has_error()]
            assert sorted(numbers) == [0, 2]
            assert sum(reply.has_error() for reply in replies) == 1
    assert not left_over(before)
