"""What tests of real processes share: a table of patients, a server and sites, patience."""

import contextlib
import csv
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tomli_w

from wardround.client.daemon.control_socket import ask_daemon
from wardround.client.daemon.status import DaemonStatus
from wardround.client.site.enrolment import join
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.identity.invitations import invite
from wardround.server.link.address import read_address, wait_for_link
from wardround.server.service.installation import init_server
from wardround.simulations.local_federation.processes import free_port

PATIENCE_SECONDS = 55.0
WARDROUND = (sys.executable, "-m", "wardround.cli")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_ROOT = Path(__file__).resolve().parents[2]
CANARY = "CANARYPATIENT"  # how every patient's name begins: it may be heard of nowhere else


def wait_until(what: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def bits_of(model: Path) -> str:
    """Return the hash of every name, shape, type and bit of a model."""
    return digest(load_model(model).parameters)


# --- A study of two numbers a patient -------------------------------------------------------------


def write_table(folder: Path, patients: int, sites: Sequence[str] = ()) -> Path:
    """Write a manifest whose patients have two numbers each; with sites, they take turns."""
    generator, manifest = np.random.default_rng(0), folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", *(["site"] if sites else []), "a", "b"])
        for number in range(patients):
            a, b = generator.normal(loc=number % 2, size=2)
            split = ("train", "train", "train", "validation", "test")[number // 2 % 5]
            site = [sites[number % len(sites)]] if sites else []
            writer.writerow([f"{CANARY}{number}", number % 2, split, *site, a, b])
    return manifest


def table_study(
    name: str, manifest: Path | None = None, steps: int = 4, **federation: object
) -> Study:
    """Return a study of such a table; with a manifest it can be simulated too."""
    simulation = {
        "data": "folder",
        "split": "natural",
        "compare": False,
        "options": {"manifest": str(manifest)},
    }
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": "a"}, {"name": "b"}],
            },
            "model": {"network": "mlp", "features": [8]},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": steps},
            "federation": federation,
            "evaluation": {"keep": "last"},
            **({} if manifest is None else {"simulation": simulation}),
        }
    )


# --- A server and its sites -----------------------------------------------------------------------


@dataclass(slots=True)
class Deployment:
    """A server folder, site folders beside it, and the processes that were started.

    Attributes:
        public_name: Under which sites reach the server.
    """

    folder: Path
    public_name: str = "localhost"
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server(self) -> Path:
        return self.folder / "server"

    def site(self, name: str) -> Path:
        return self.folder / name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def make_server(self) -> None:
        init_server(self.server, "lab", [self.public_name], "127.0.0.1", self.port)

    def join(self, name: str) -> Path:
        join(invite(self.server, name), self.site(name))
        return self.site(name)

    def spawn(self, name: str, *words: object, **more: str) -> subprocess.Popen[bytes]:
        """Start a module as a process that writes to a log of that name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, words)],
                cwd=_ROOT,  # where 'tests' is found, whoever calls
                env={**ENVIRONMENT, **more},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def start_link(self, open_files: int | None = None) -> subprocess.Popen[bytes]:
        """Start the link alone, without what watches over it.

        Args:
            open_files: How many the system allows it at most; None for as many as this process.
        """
        words: tuple[object, ...] = ("wardround.server.link.process", self.server)
        if open_files is not None:
            words = ("tests.support.link.few_files", open_files, *words)
        return self._serve("link", *words)

    def site_certificate(self, name: str) -> Path:
        """Return a site's certificate with its key, in one file."""
        keys = self.site(name) / "keys"
        both = self.site(name) / "both.pem"
        both.write_bytes((keys / "tls.key").read_bytes() + (keys / "tls.crt").read_bytes())
        return both

    def change_settings(self, **settings: object) -> None:
        """Change what ``server.toml`` says; to be called before the server starts."""
        path = self.server / "server.toml"
        path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), **settings}))

    def start_server(self, **more: str) -> subprocess.Popen[bytes]:
        return self._serve("server", "wardround.cli", "server", "start", self.server, **more)

    def start_site(self, name: str, *options: str, **more: str) -> subprocess.Popen[bytes]:
        words = ("wardround.cli", "site", "start", self.site(name), *options)
        return self.spawn(name, *words, **more)

    def start_proxy(self) -> int:
        """Start a proxy that takes whatever name it is asked for as this machine; return its port.

        Its log is that port, and then a line a request.
        """
        self.spawn("proxy", "tests.support.link.connect_proxy")
        wait_until(lambda: "\n" in self.log("proxy"))
        return int(self.log("proxy").splitlines()[0])

    def status(self, name: str) -> DaemonStatus:
        return DaemonStatus.from_json(ask_daemon(self.site(name), "status"))

    def child(self, module: str) -> psutil.Process | None:
        """Return the server's child that runs a module, if there is one."""
        for process in self.processes:
            for child in _children_of(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(module in word for word in child.cmdline()):
                        return child
        return None

    def kill_child(self, module: str) -> None:
        """Kill the server's child that runs a module, and wait for the next one."""
        child = self.child(module)
        assert child is not None
        child.kill()
        wait_until(lambda: self.child(module) not in (None, child))

    def close(self) -> None:
        for process in self.processes:
            children = _children_of(process)
            process.kill()
            process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def _serve(self, name: str, *words: object, **more: str) -> subprocess.Popen[bytes]:
        before = read_address(self.server)
        process = self.spawn(name, *words, **more)
        is_up = wait_for_link(self.server, before, lambda: process.poll() is not None)
        assert is_up, self.log(name)
        return process


@contextmanager
def deployed(folder: Path, public_name: str = "localhost") -> Iterator[Deployment]:
    """Give a new server folder; in the end every process that was started is killed."""
    made = Deployment(folder, public_name)
    made.make_server()
    try:
        yield made
    finally:
        made.close()


def _children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    return psutil.Process(process.pid).children()
