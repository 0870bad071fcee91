"""A Ray that this process starts keeps to this machine: it calls nobody, nobody can call it.

Whoever reaches Ray's ports can run any program, and by default they are open on every network of
the machine. Written against Ray 2.55;
``tests/unit/common/flower/ray/test_runtime.py`` holds the contracts.
"""

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


@contextmanager
def surroundings_of_ray(is_local: bool) -> Iterator[None]:
    """Set what Ray's processes inherit, and leave nothing of it behind.

    Args:
        is_local: Whether Ray is started here; a cluster has its own rules.
    """
    with _environment(_QUIET | SECLUDED if is_local else _QUIET):
        if not is_local:
            yield
            return
        # Ray reads the variable when it is imported, which may have happened long ago.
        from ray._private import ray_constants

        before = ray_constants.ENABLE_RAY_CLUSTER
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


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
