"""The job by stock Flower: a SuperLink, two SuperNodes, FedAvg; its own pauses, server TLS.

Nothing is tuned. Nodes have no certificates, as Flower knows none; the certificate of the SuperLink
is made as ours are. Only what would call out or install something is switched off.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from benchmarks.support.deployed_run import DeployedRun
from benchmarks.support.federation_job import SITES, Perceptron
from benchmarks.support.live_processes import UsageWatch, is_running
from benchmarks.support.processes import process_tree
from benchmarks.support.watching import watching
from wardround.common.flower.environment import without_proxies
from wardround.common.runtime.system.processes import Child, last_words
from wardround.server.identity.server_certificate import ServerTls, load_server_tls
from wardround.server.service.installation import init_server
from wardround.simulations.local_federation.processes import free_port

_START_SECONDS, _LOOK_SECONDS, _END_SECONDS = 120.0, 0.5, 10.0
_GONE_SECONDS = 30.0  # without a ServerApp a run does not go on
_TELLING = ("database is locked", "ERROR", "Error:")  # of a failed run, the first found


@dataclass(frozen=True)
class StockTerms:
    """How stock Flower is run.

    Attributes:
        work: ``step`` in torch, or ``scale`` without it.
        database: Of the SuperLink: "" for memory, its default, or a file.
    """

    work: str
    rounds: int
    deadline_seconds: float
    database: str = ""


def run_flower(folder: Path, network: Perceptron, terms: StockTerms) -> DeployedRun:
    """Start everything, run the app, end everything.

    Args:
        folder: New; gets the app, the certificates and ``logs/``.

    Raises:
        RuntimeError: It does not start.
    """
    started = time.time()
    stamps = folder / "stamps.jsonl"
    deployment = _Deployment(folder, terms)
    deployment.write_app(network, stamps)
    with watching(UsageWatch()) as watch, deployment.running():
        deployment.submit()
        failure = _await_end(stamps, terms)
        usage = watch.usage
    if failure:
        failure = f"{failure}; {deployment.first_line(*_TELLING) or 'no log says why'}"
    failure = failure or deployment.first_line(_TELLING[0])
    return DeployedRun(started, _read(stamps), usage, failure)


class _Deployment:
    """The processes of stock Flower in a folder."""

    def __init__(self, folder: Path, terms: StockTerms) -> None:
        self._folder, self._terms = folder, terms
        self._port, self._tls = free_port(), _make_tls(folder)
        self._logs, self._app = folder / "logs", folder / "app"
        binaries = Path(sys.executable).parent
        self._environment = {
            **without_proxies(os.environ),
            "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
            "FLWR_HOME": str(folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "UV_OFFLINE": "1",
        }

    def write_app(self, network: Perceptron, stamps: Path) -> None:
        """Write the app, and where its SuperLink is."""
        self._app.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("flower_app.py"), self._app / "flower_app.py")
        config = {
            "rounds": self._terms.rounds,
            "sites": len(SITES),
            "widths": ",".join(map(str, network.widths)),
            "work": self._terms.work,
            "stamps": str(stamps),
        }
        components = {"serverapp": "flower_app:server", "clientapp": "flower_app:client"}
        app = {"publisher": "wardround", "components": components, "config": config}
        project = {
            "project": {"name": "federation-job", "version": "1.0.0", "license": "Apache-2.0"},
            "tool": {"flwr": {"app": app}},
        }
        (self._app / "pyproject.toml").write_text(tomli_w.dumps(project))
        link = {"address": f"localhost:{self._port}", "root-certificates": str(self._tls.ca_path)}
        home = self._folder / "flower"
        home.mkdir()
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"job": link}}))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have a SuperLink and its SuperNodes run; nothing of them stays.

        Raises:
            RuntimeError: The SuperLink does not start.
        """
        children = []
        try:
            children.append(self._start("superlink", *self._superlink()))
            self._await_port(children[0])
            children += [self._start(site, *self._supernode(n)) for n, site in enumerate(SITES)]
            yield
        finally:
            _end_all(children)

    def submit(self) -> None:
        """Hand in the app.

        Raises:
            RuntimeError: The SuperLink refuses it.
        """
        done = subprocess.run(
            _command("flwr", "run", str(self._app), "job", "--format", "json"),
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        if done.returncode or '"run-id"' not in done.stdout:
            message = f"flwr run failed: {(done.stdout + done.stderr)[-1000:]}"
            raise RuntimeError(message)

    def first_line(self, *words: str) -> str:
        """Return the first line of the logs with the first of these words that is there."""
        lines = [
            line.strip() for log in self._logs.glob("*.log") for line in log.read_text().split("\n")
        ]
        return next((ln[-300:] for word in words for ln in lines if word in ln), "")

    def _superlink(self) -> list[str]:
        tls = self._tls
        database = ["--database", self._terms.database] if self._terms.database else []
        return [
            *("flower-superlink", "--host", "127.0.0.1", "--port", str(self._port)),
            *("--ssl-ca-certfile", str(tls.ca_path), "--ssl-certfile", str(tls.cert_path)),
            *("--ssl-keyfile", str(tls.key_path), "--disable-runtime-dependency-installation"),
            *database,
        ]

    def _supernode(self, number: int) -> list[str]:
        return [
            *("flower-supernode", "--superlink", f"localhost:{self._port}"),
            *("--root-certificates", str(self._tls.ca_path), "--port", str(free_port())),
            *("--node-config", f"partition-id={number}"),
        ]

    def _start(self, name: str, *words: str) -> Child:
        return Child(_command(*words), self._environment, self._logs / f"{name}.log")

    def _await_port(self, superlink: Child) -> None:
        until = time.monotonic() + _START_SECONDS
        while not _listens(self._port):
            if superlink.exit_code is not None or time.monotonic() > until:
                message = f"no SuperLink: {last_words(self._logs / 'superlink.log')}"
                raise RuntimeError(message)
            time.sleep(0.1)


def _command(*words: str) -> list[str]:
    """Return a command of Flower that ends with this process."""
    return [sys.executable, str(Path(__file__).with_name("flower_process.py")), *words]


def _make_tls(folder: Path) -> ServerTls:
    """Make a CA and a certificate for loopback, as a server of ours has them."""
    place = folder / "certificates"
    init_server(place, "stock Flower", ["localhost", "127.0.0.1"], "127.0.0.1", free_port())
    return load_server_tls(place)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _await_end(stamps: Path, terms: StockTerms) -> str:
    """Return why a run has not come to its end; empty if it has."""
    until = time.monotonic() + terms.deadline_seconds
    seen_at = time.monotonic()
    while len(_read(stamps)) < terms.rounds:
        if is_running("ServerApp"):
            seen_at = time.monotonic()
        if time.monotonic() - seen_at > _GONE_SECONDS:
            return "its ServerApp has gone"
        if time.monotonic() > until:
            return f"not done after {terms.deadline_seconds:g} s"
        time.sleep(_LOOK_SECONDS)
    return ""


def _read(stamps: Path) -> tuple[float, ...]:
    text = stamps.read_text() if stamps.exists() else ""
    return tuple(json.loads(line)["at"] for line in text.splitlines())


def _end_all(children: list[Child]) -> None:
    """End these, and what they have started and left behind."""
    descendants = {pid for child in children for pid in process_tree(child.pid)[1:]}
    for child in reversed(children):
        child.ask_to_end()
    for child in reversed(children):
        child.end(_END_SECONDS)
    for pid in descendants:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
