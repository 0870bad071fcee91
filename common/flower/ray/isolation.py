"""A Ray that this process starts keeps to this machine: it calls nobody, nobody can call it.

Whoever reaches Ray's ports can run any program, and by default they are open on every network of
the machine. A call to a Ray that has just been stopped starts another one, or joins whatever
cluster is found on the machine, unless Ray is told not to. Written against Ray 2.55;
``tests/unit/common/flower/ray/test_runtime.py`` holds the contracts.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Ray's dashboard process, started even with include_dashboard=False, asks the clouds' metadata
# addresses over plain HTTP where it runs, and has no setting against it: Ray's own processes get a
# proxy that nobody answers at. Their own talk is gRPC, which knows no proxy.
SECLUDED = {
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "localhost,127.0.0.1",
    # Its name tells the reason why Ray has it; its effect is that all ports are on the loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # else Ray warns of its own future


MARK = "WARDROUND_RAY"  # names the Ray that a process belongs to, by its folder


@contextmanager
def surroundings_of_ray(folder: str | None) -> Iterator[None]:
    """Set what Ray's processes inherit, and leave nothing of it behind.

    Args:
        folder: Of a Ray that is started here; None for a cluster, which has its own rules.
    """
    here = {} if folder is None else SECLUDED | {MARK: folder}
    with _environment(_QUIET | here), _setting("_private.auto_init_hook", "enable_auto_connect"):
        if folder is None:
            yield
            return
        # Ray reads the variable when it is imported, which may have happened long ago.
        with _setting("_private.ray_constants", "ENABLE_RAY_CLUSTER"):
            yield


@contextmanager
def _setting(module: str, name: str) -> Iterator[None]:
    """Switch one of Ray's own settings off."""
    place = importlib.import_module(f"ray.{module}")
    before = getattr(place, name)
    setattr(place, name, False)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in (*values, "PYTHONPATH"):  # Flower writes the latter
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
