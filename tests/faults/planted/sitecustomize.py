"""Loaded by Python into every process of a fault run: does to named functions what a plan says.

No line of wardround knows of this. The folder WARDROUND_FAULTS holds a file for each fault that is
armed; a function of POINTS looks there at each call, and writes down that it was called.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("WARDROUND_FAULTS", "")
POINTS = {
    "wardround.server.rounds.asking": ("pack_instruction", "unpack_update", "addressed"),
    "wardround.server.rounds.loop": ("as_measurements",),
    "wardround.server.checkpoints.store": ("CheckpointStore._write",),
    "wardround.client.privacy.ledger.ledger": ("PrivacyLedger.reserve", "PrivacyLedger.release"),
    "wardround.client.privacy.ledger.file": ("LedgerFile._write",),
    "wardround.client.egress.gateway": ("Gateway.train", "Gateway.describe"),
    "wardround.client.session.session": ("SiteSession.train",),
    "wardround.client.egress.masking": ("MaskedSite.train", "MaskedSite.answer"),
    "wardround.common.privacy.secure_aggregation.server": (
        "ServerRound.close_roster",
        "ServerRound.close_shares",
        "ServerRound.close_masked",
        "ServerRound.close_agreements",
        "ServerRound.unmask",
    ),
    "wardround.client.privacy.step": ("learning_rate_at",),
    "wardround.client.site.enrolment": ("renew",),
    "wardround.client.daemon.certificate_renewal": (),
    "wardround.common.flower.supernode.transfers": ("Transfers.push",),
    "wardround.client.clinic.gateway.queue": (
        "WorkQueue.settled",
        "WorkQueue.add",
        "WorkQueue.begin",
        "WorkQueue.end",
    ),
    "wardround.client.clinic.gateway.answer": (
        "missing_results",
        "fetch_images",
        "predict_series",
        "make_objects",
        "store_object",
        "keep_fhir",
    ),
}
# What would take too long to wait for: how often a daemon looks at its certificate.
NUMBERS = {
    "wardround.client.daemon.certificate_renewal": {"_LOOK_SECONDS": 1.0, "_RENEWAL_SECONDS": 1.0}
}
_MOST_SECONDS = 300.0
_BULK_NUMBERS, _BULK_ZEROS = 30_000_000, 75_000_000  # 120 MB that differ, 300 MB that do not


def who() -> str:
    """Return the site whose process this is, daemon or worker; "server" for all others."""
    for process in ("self", str(os.getppid())):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
            sites = [Path(word).name for word in words if Path(word).parent.name == "sites"]
            if sites:
                return sites[0]
    return "server"


# --- What is done -------------------------------------------------------------------------------


def kill(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def freeze(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGSTOP)


def hold(place: Path) -> None:
    """Wait until the fault run says go."""
    until = time.monotonic() + _MOST_SECONDS
    while not place.with_suffix(".go").exists() and time.monotonic() < until:
        time.sleep(0.02)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run_out_of_memory() -> None:
    """Raise what torch raises where a GPU's memory is full."""
    import torch

    msg = "CUDA out of memory. Tried to allocate 2.00 GiB."
    raise torch.OutOfMemoryError(msg)


def stay_silent() -> None:
    from wardround.common.errors import RunError

    msg = "the server does not answer (planted)."
    raise RunError(msg)


ACTIONS: dict[str, Callable[[Path], None]] = {
    "die": lambda _: kill(os.getpid()),
    "die with parent": lambda _: kill(os.getppid(), os.getpid()),
    "freeze with parent": lambda _: freeze(os.getppid(), os.getpid()),
    "hold": hold,
    "sleep 20 s": lambda _: time.sleep(20),
    "full disk": lambda _: fill_disk(),
    "no memory": lambda _: run_out_of_memory(),
    "no answer": lambda _: stay_silent(),
}


def spoilt(content: Any, spoil: Callable[[Any], Any]) -> Any:
    """Return an update whose first array is another."""
    from flwr.app import Array, ArrayRecord, RecordDict

    (name,) = [name for name, record in content.items() if isinstance(record, ArrayRecord)][:1]
    arrays = dict(content[name].items())
    first = next(iter(arrays))
    arrays[first] = Array(spoil(arrays[first].numpy()))
    return RecordDict({**content, name: ArrayRecord(arrays)})


def swollen(content: Any, bulk: str) -> Any:
    """Return a message whose model has one array more, a large one.

    Args:
        bulk: "numbers", which all travel, or "zeros": one piece travels, and is named many times.
    """
    import numpy as np
    from flwr.app import Array, ArrayRecord, RecordDict

    make = np.arange if bulk == "numbers" else np.zeros
    count = _BULK_NUMBERS if bulk == "numbers" else _BULK_ZEROS
    model = ArrayRecord(
        {**dict(content["model"].items()), "bulk": Array(make(count, dtype="int32"))}
    )
    return RecordDict({**content, "model": model})


def of_another_version(content: Any) -> Any:
    """Return an introduction of a site that runs another version."""
    from flwr.app import ConfigRecord, RecordDict

    header = ConfigRecord({**dict(content["header"].items()), "wardround": "9.0.1"})
    return RecordDict({**content, "header": header})


RESULTS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "NaN": lambda content, _: spoilt(content, lambda array: array * float("nan")),
    "wrong shape": lambda content, _: spoilt(content, lambda array: array.reshape(-1)[:-1]),
    "huge norm": lambda content, _: spoilt(content, lambda array: array + 1e6),
    "the answer before": lambda _, earlier: earlier[-2],
    "120 MB more": lambda content, _: swollen(content, "numbers"),
    "300 MB more in one piece": lambda content, _: swollen(content, "zeros"),
    "another version": lambda content, _: of_another_version(content),
}


# --- When it is done ----------------------------------------------------------------------------


def armed(point: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the plan whose turn has come at this call, and take it away."""
    for place in sorted(Path(FOLDER).glob("*.json")):
        try:
            plan = json.loads(place.read_text())
        except (OSError, ValueError):
            continue
        if plan["point"] != point or plan["who"] not in ("", who()):
            continue
        if plan["call"] == 0:  # always
            return place, plan
        counted = place.with_suffix(".count")
        counted.write_text(counted.read_text() + "x" if counted.exists() else "x")
        if len(counted.read_text()) == plan["call"]:
            place.rename(place.with_suffix(".reached"))
            return place, plan
    return None


def wrapped(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    results: list[Any] = []

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        with (Path(FOLDER) / "calls.log").open("a") as log:
            log.write(f"{point} {who()}\n")
        found = armed(point)
        action = found[1]["do"] if found else ""
        if found and action in ACTIONS and not found[1]["after"]:
            ACTIONS[action](found[0])
        result = function(*args, **named)
        if found and action in ACTIONS and found[1]["after"]:
            ACTIONS[action](found[0])
        if action == "three times":
            function(*args, **named)
            function(*args, **named)
        results[:] = [*results[-1:], result]
        return RESULTS[action](result, results) if action in RESULTS else result

    return call


def plant(module: Any) -> None:
    """Wrap the functions of a module that has just been imported."""
    vars(module).update(NUMBERS.get(module.__name__, {}))
    for name in POINTS[module.__name__]:
        owner, _, last = name.rpartition(".")
        place = getattr(module, owner) if owner else module
        point = f"{module.__name__.removeprefix('wardround.')}:{name}"
        setattr(place, last, wrapped(point, getattr(place, last)))


class Planter(MetaPathFinder):
    """Wraps the functions of POINTS when their module is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in POINTS:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next(spec for spec in specs if spec is not None)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            plant(module)

        spec.loader.exec_module = exec_module
        return spec


def follow_clock() -> None:
    """Have this process's clock be as wrong as its file says, where the library is loaded."""
    place = Path(os.environ["WARDROUND_FAULT_CLOCKS"]) / who()
    if place.exists():
        ctypes.CDLL(None).follow_clock(str(place).encode())


if "WARDROUND_FAULT_CLOCKS" in os.environ:
    follow_clock()
if FOLDER:
    sys.meta_path.insert(0, Planter())
