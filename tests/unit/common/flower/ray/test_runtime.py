"""What the engine "ray" assumes of Flower 1.41 and Ray 2.55, without starting either."""

import importlib
import importlib.util
import inspect
import os
import pickle
import socket
import threading

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from wardround.common.errors import InputError, RunError
from wardround.common.flower.ray.isolation import SECLUDED, surroundings_of_ray
from wardround.common.flower.ray.runtime import PARTITION_ID, RayPlan, open_ray
from wardround.simulations.engines.in_process import InProcessGrid
from wardround.simulations.engines.ray_engine import AssignedClientApp, RayOptions

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: make install",
)


def simulated(monkeypatch: pytest.MonkeyPatch, engine: object) -> None:
    monkeypatch.setattr("flwr.simulation.run_simulation", engine)


def test_flowers_engine_takes_both_apps_as_objects_in_the_order_we_give_them() -> None:
    engine = importlib.import_module("flwr.simulation").run_simulation
    names = list(inspect.signature(engine).parameters)
    assert names[:5] == [
        "server_app",
        "client_app",
        "num_supernodes",
        "backend_name",
        "backend_config",
    ]


def test_flower_numbers_its_nodes_under_the_key_we_read() -> None:
    assert PARTITION_ID == "partition-id"


@needs_ray
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_knows_every_word_of_the_plan(address: str | None) -> None:
    import ray

    backend = RayPlan(sites=2, address=address).backend("/tmp/folder")
    known = set(inspect.signature(ray.init).parameters) | {"_temp_dir"}
    assert set(backend["init_args"]) <= known
    assert set(backend["client_resources"]) == {"num_cpus", "num_gpus"}


def test_a_clusters_size_is_not_told_to_it() -> None:
    # ray.init refuses num_cpus and num_gpus beside the address of a running cluster.
    start = RayPlan(sites=2, address="10.0.0.1:6379").backend("/tmp/folder")["init_args"]
    assert not {"num_cpus", "num_gpus", "_temp_dir"} & set(start)


@needs_ray
def test_rays_look_ups_for_a_cloud_do_not_leave_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._common.usage import usage_lib

    asked: list[str] = []

    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        asked.append(address[0])
        raise ConnectionRefusedError

    real = socket.getaddrinfo

    def resolve(host: str, *rest: object, **more: object) -> object:
        asked.append(host)
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for name, value in SECLUDED.items():
        monkeypatch.setenv(name, value)
    assert usage_lib.get_cloud_from_metadata_requests() == "unknown"
    assert set(asked) == {"127.0.0.1"}


@needs_ray
def test_a_ray_of_this_machine_has_the_loopback_address_and_a_cluster_its_own() -> None:
    from ray._private import ray_constants, services

    before = ray_constants.ENABLE_RAY_CLUSTER
    with surroundings_of_ray("/somewhere"):
        assert services.get_node_ip_address() == "127.0.0.1"
    assert before == ray_constants.ENABLE_RAY_CLUSTER
    with surroundings_of_ray(None):
        assert before == ray_constants.ENABLE_RAY_CLUSTER


@needs_ray
def test_an_engine_that_does_not_start_is_an_error_and_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        msg = "it crashed"
        raise RuntimeError(msg) from ConnectionError("nobody at 10.0.0.1\nmore")

    simulated(monkeypatch, crash)
    with (
        pytest.raises(RunError, match=r"nobody at 10\.0\.0\.1\)"),
        open_ray(ClientApp(), RayPlan(sites=1)),
    ):
        pass


@needs_ray
def test_the_environment_is_afterwards_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(server_app: object, *_: object) -> None:
        seen.update(os.environ)
        os.environ["PYTHONPATH"] = "left behind"
        raise RuntimeError

    simulated(monkeypatch, run)
    before = dict(os.environ)
    with pytest.raises(RunError), open_ray(ClientApp(), RayPlan(sites=1)):
        pass
    assert seen["http_proxy"].startswith("http://127.0.0.1:")
    assert seen["RAY_USAGE_STATS_ENABLED"] == "0"
    assert dict(os.environ) == before


@needs_ray
def test_leaving_the_grid_ends_the_server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def run(server_app: ServerApp, *_: object) -> None:
        server_app(InProcessGrid(ClientApp(), {}, 1), Context(1, 0, {}, RecordDict(), {}))
        ended.set()

    simulated(monkeypatch, run)
    with open_ray(ClientApp(), RayPlan(sites=1)):
        assert not ended.is_set()
    assert ended.is_set()


def test_a_node_answers_as_its_site_and_its_own_context_stays_as_flower_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Flower 1.41 refuses the answer of a node whose run_config was changed.
    from wardround.simulations.engines import ray_engine as ray

    heard: list[Context] = []

    def reply(app: ClientApp, message: Message, context: Context) -> Message:
        heard.append(context)
        return message

    monkeypatch.setattr(ray, "run_client", reply)
    sites = [
        Context(1, n, {"site": name}, RecordDict(), {"study": "s"}) for n, name in enumerate("ab")
    ]
    app = pickle.loads(pickle.dumps(AssignedClientApp(sites, threads=1)))
    context = Context(7, 99, {PARTITION_ID: 1}, RecordDict(), {})
    app("message", context)
    assert heard[0].node_config["site"] == "b"
    assert heard[0].run_config == {"study": "s"}
    assert heard[0].state is context.state
    assert (context.node_config, context.run_config) == ({PARTITION_ID: 1}, {})


@needs_ray
@pytest.mark.parametrize(
    ("options", "device", "word"),
    [
        (RayOptions(cpus_per_site=0), "cpu", "at least 0.01"),
        (RayOptions(cpus_per_site=float("nan")), "cpu", "at least 0.01"),
        (RayOptions(cpus_per_site=3), "cpu", "more than the 2 cores"),
        (RayOptions(gpus_per_site=0.5), "cpu", "leave one out"),
        (RayOptions(gpus_per_site=-1), "auto", "0 or more"),
        (RayOptions(gpus_per_site=99), "auto", "more than the"),
        (RayOptions(), "cuda:1", "use --device cuda"),
    ],
)
def test_what_ray_could_never_give_is_refused(options: RayOptions, device: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        options.check(device, cores=2)


@needs_ray
def test_a_cluster_may_have_more_than_this_machine() -> None:
    RayOptions(address="10.0.0.1:6379", cpus_per_site=64, gpus_per_site=8).check("auto", cores=2)


def test_without_ray_the_remedy_is_a_line_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardround.simulations.engines.ray_engine.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'flwr\[simulation\]"):
        RayOptions().check("cpu", cores=2)


@pytest.mark.parametrize("port", [1, 99999])
def test_a_cluster_that_is_not_there_is_said_at_once(port: int) -> None:
    plan = RayPlan(sites=1, address=f"127.0.0.1:{port}")
    with pytest.raises(RunError, match="check --ray-address"), open_ray(ClientApp(), plan):
        pass
