"""A cluster's pool of actors: one that dies takes no site with it; no Ray is started here."""

import importlib
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: make install")
from ray.exceptions import ActorDiedError

from wardround.common.errors import RunError
from wardround.common.flower.ray import cluster
from wardround.common.flower.ray.cluster import LastingPool, lasting_actors, require_shared


class FakeRay:
    """Futures are what the actors are to say; those of the dead raise."""

    def __init__(self, dead: set[str], nodes: list[dict[str, Any]] | None = None) -> None:
        self.dead, self._nodes = dead, nodes or []

    def get(self, future: Any, timeout: float | None = None) -> Any:
        if callable(future):
            return future()
        if future[0] in self.dead:
            raise ActorDiedError
        if future[1] == "bad":
            raise ValueError(future[1])
        return "0", future[1], "context"

    def kill(self, actor: str) -> None:
        self.dead.add(actor)

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes

    def remote(self, **_: object) -> Any:
        class Task:
            def __init__(self, function: Any) -> None:
                self._function = function

            def options(self, **_: object) -> "Task":
                return self

            def remote(self, paths: list[str]) -> Any:
                return lambda: self._function(paths)

        return Task


def pool_of(monkeypatch: pytest.MonkeyPatch, *actors: str, dead: set[str]) -> LastingPool:
    monkeypatch.setattr(cluster, "ray", FakeRay(dead))
    pool = LastingPool.__new__(LastingPool)
    pool.pool, pool.num_actors = list(actors), len(actors)
    pool._future_to_actor, pool._jobs = {}, {}
    return pool


def ask(pool: LastingPool, message: str) -> Any:
    future = pool.submit(lambda actor, *job: (actor, job[1]), ("app", message, "0", "context"))
    return pool.fetch_result_and_return_actor_to_pool(future)


def test_what_a_dead_actor_had_in_hand_is_done_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(monkeypatch, "a", "b", dead={"b"})
    assert ask(pool, "one") == ("one", "context")
    assert pool.pool == ["a"], "the dead one gets nothing more"
    assert ask(pool, "two") == ("two", "context")


def test_without_an_actor_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(monkeypatch, "a", dead={"a"})
    with pytest.raises(RunError, match="no machine of the Ray cluster is left"):
        ask(pool, "one")
    with pytest.raises(RunError):
        ask(pool, "two")


def test_a_pool_that_is_given_up_ends_all_and_starts_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = pool_of(monkeypatch, "a", "b", "c", dead=set())
    future = pool.submit(lambda actor, *job: (actor, job[1]), ("app", "one", "0", "context"))
    pool.give_up()
    assert cluster.ray.dead == {"a", "b", "c"}
    with pytest.raises(RunError, match="no machine"):
        pool.fetch_result_and_return_actor_to_pool(future)


def test_a_job_that_fails_is_not_done_again_and_its_actor_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = pool_of(monkeypatch, "a", dead=set())
    with pytest.raises(ValueError, match="bad"):
        ask(pool, "bad")
    assert pool.pool == ["a"]


def test_flowers_engine_makes_its_pool_by_the_name_that_is_exchanged() -> None:
    raybackend = importlib.import_module("flwr.server.superlink.fleet.vce.backend.raybackend")
    actors = importlib.import_module("flwr.simulation.ray_transport.ray_actor")
    assert raybackend.BasicActorPool is actors.BasicActorPool
    with lasting_actors() as made:
        assert raybackend.BasicActorPool is not actors.BasicActorPool
        assert made == []
    assert raybackend.BasicActorPool is actors.BasicActorPool
    names = ("submit", "fetch_result_and_return_actor_to_pool", "add_actor_back_to_pool")
    assert all(callable(getattr(actors.BasicActorPool, name)) for name in names)


def test_a_machine_that_does_not_see_a_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"Alive": True, "NodeID": "00" * 28, "NodeManagerAddress": "10.0.0.2"}
    gone = {**node, "Alive": False, "NodeManagerAddress": "10.0.0.3"}
    monkeypatch.setattr(cluster, "ray", FakeRay(set(), [node, gone]))
    require_shared(["/"])
    with pytest.raises(RunError, match=r"machine 10\.0\.0\.2 .* does not see /nowhere/at/all"):
        require_shared(["/", "/nowhere/at/all"])
