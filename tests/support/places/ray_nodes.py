"""Nodes of a Ray cluster as processes of this machine, so that one can go like a machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wardround.simulations.local_federation.processes import free_port


@dataclass
class RayNodes:
    """Nodes of one CPU each; the first is the head."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the head, or another node, and wait until it is there."""
        log = self.folder / f"node-{len(self.processes)}.log"
        words = ["--address", f"127.0.0.1:{self.port}"]
        if not self.processes:
            words = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words),
                    *("--node-ip-address=127.0.0.1", "--num-cpus=1", "--num-gpus=0"),
                    *("--disable-usage-stats", "--object-store-memory=100000000"),
                ],
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.processes.append(process)
        until = time.monotonic() + 120
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def workers(self, number: int) -> list[psutil.Process]:
        """Return the actors that work on a node."""
        family = psutil.Process(self.processes[number].pid).children(recursive=True)
        return [one for one in family if "ClientAppActor" in " ".join(one.cmdline())]

    def kill(self, number: int) -> None:
        """End a node as a machine ends whose power is cut."""
        process = self.processes[number]
        family = psutil.Process(process.pid).children(recursive=True)
        for one in (*family, psutil.Process(process.pid)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@contextmanager
def ray_nodes(folder: Path) -> Iterator[RayNodes]:
    """Give a cluster that has no node yet, and end those that were started."""
    made = RayNodes(folder, free_port())
    try:
        yield made
    finally:
        for number, process in enumerate(made.processes):
            if process.poll() is None:
                made.kill(number)
