"""What faults happen to: a server and three sites as real processes, each site behind a proxy."""

import csv
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from tests.faults.proxy import Proxy

from wardround.client.policy.approvals import Terms, decide
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.runtime.system.processes import Child
from wardround.common.security.peers import write_peers
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.operators.client import ServerLine, server_at
from wardround.server.operators.messages import RunDetails, Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.experiment.federation import Machine, introduce
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.local_federation.processes import _MODULE, SERVER_FOLDER, LocalFederation
from wardround.simulations.local_federation.run import write_trial_policy
from wardround.simulations.sites.preparation import prepare_sites

ROUNDS, ROUND_STEPS, DEADLINE_SECONDS = 4, 4, 12.0
SITES = ("site-0", "site-1", "site-2")
_PATIENT_SECONDS = 40.0  # for a site that was killed to be there again, on a busy machine
# For one fault; a machine with much other work needs more, for each process that starts again.
PATIENCE_SECONDS = float(os.environ.get("WARDROUND_FAULT_SECONDS", "120"))
MANY = Terms(10**6, ())  # rounds: what is killed is trained again, in one schedule after another
_PLANTED = Path(__file__).parent / "planted"


def write_manifest(folder: Path) -> Path:
    """Write forty patients of each of three sites, as a table of two numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, manifest = np.random.default_rng(0), folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "a", "b"])
        for number in range(120):
            a, b = generator.normal(loc=number % 2, size=2)
            split = ("train", "train", "train", "validation", "test")[number // 2 % 5]
            writer.writerow([f"CANARYPATIENT{number}", number % 2, split, SITES[number % 3], a, b])
    return manifest


def make_study(manifest: Path, name: str, **changes: object) -> Study:
    federation = {"rounds": ROUNDS, "minimum_sites": 2, **changes}
    private = name == "private"
    privacy = {"mode": "patient", "epsilon": 50.0, "sampling_rate": 0.5, "expected_patients": 12}
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": n, "mean": 0.5, "scale": 1.0} for n in ("a", "b")],
            },
            "model": {"network": "mlp", "features": [] if private else [8]},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": ROUND_STEPS},
            "federation": federation,
            "privacy": privacy if private else {},
            "evaluation": {"keep": "last"},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "compare": False,
                "options": {"manifest": str(manifest)},
            },
        }
    )


class Stage:
    """A federation that stays up between faults; a fault leaves it as it found it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = write_manifest(folder / "data")
        self.plain = make_study(manifest, "plain")
        self.hurried = make_study(manifest, "hurried", deadline_seconds=DEADLINE_SECONDS)
        self.private = make_study(manifest, "private", deadline_seconds=_PATIENT_SECONDS)
        self.plans = folder / "plans"
        self.plans.mkdir()
        environment = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(_PLANTED), os.environ.get("PYTHONPATH", "")]),
            "WARDROUND_FAULTS": str(self.plans),
        }
        self.federation = LocalFederation(folder, environment)
        self.port = 0
        self.proxies: dict[str, Proxy] = {}
        self.expected = ""
        self._manifest = manifest

    # --- The federation ---------------------------------------------------------------------------

    def open(self) -> None:
        """Start everything, and simulate the plain study for the model that it must end in."""
        out = self.folder / "simulated"
        simulate(SimulationRequest(self.plain, out, Machine(engine="in-process", threads=1)))
        self.expected = bits_of(out / "models" / "federated.safetensors")
        folders = prepare_sites(self.plain, self.folder).folders
        for folder in folders:
            write_trial_policy(folder, self.private)
        self.federation.make_server()
        write_peers(self.federation.server, introduce(folders))
        self.federation.start_server()
        self.port = int(self.federation.address.rpartition(":")[2])
        for name in SITES:
            self.federation.join(self.site(name))
            self.proxies[name] = Proxy(self.port)
            for study in (self.plain, self.hurried, self.private):
                decide(self.site(name), study.digest, "approved", terms=MANY)
            self.start_site(name)

    def close(self) -> None:
        self.thaw()
        self.federation.stop()
        for proxy in self.proxies.values():
            proxy.close()

    def approve_masked(self, seed: int) -> tuple[Study, str]:
        """Return a study whose sites mask, approved by all, and the bits it must end in.

        A site never masks an update twice, so each fault has a study with a seed of its own.
        """
        study = make_study(
            self._manifest, "masked", minimum_sites=len(SITES), secure_aggregation=True, seed=seed
        )
        out = self.folder / f"simulated-{seed}"
        simulate(SimulationRequest(study, out, Machine(engine="in-process", threads=1)))
        for name in SITES:
            decide(self.site(name), study.digest, "approved", terms=MANY)
        return study, bits_of(out / "models" / "federated.safetensors")

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name

    def start_site(self, name: str) -> None:
        self.federation.start_site(self.site(name), f"localhost:{self.proxies[name].port}")

    def start_site_by(self, launcher: Sequence[str], name: str) -> None:
        """Start a site through a command that takes the site's as its last words."""
        federation = self.federation
        words = ["site", "start", str(self.site(name)), "--server"]
        federation._children[name] = Child(
            [
                *launcher,
                sys.executable,
                "-m",
                _MODULE,
                *words,
                f"localhost:{self.proxies[name].port}",
            ],
            federation._environment,
            federation.log_path(name),
        )

    def restart_site(self, name: str) -> None:
        """Wait until a site is dead, and start it again."""
        wait_until(lambda: self.federation.child(name).exit_code is not None)
        self.start_site(name)

    def restart_server(self) -> None:
        """Wait until the server is dead, and start it again."""
        wait_until(lambda: self.federation.child(SERVER_FOLDER).exit_code is not None)
        self.federation.start_server()

    def restore(self) -> None:
        """Have everything run again, with no fault left over."""
        for place in self.plans.iterdir():
            place.unlink()
        self.thaw()
        for proxy in self.proxies.values():
            proxy.mend()
        if self.federation.child(SERVER_FOLDER).exit_code is not None:
            self.federation.start_server()
        for name in SITES:
            if self.federation.child(name).exit_code is not None:
                self.start_site(name)
        self.await_sites()

    def await_sites(self) -> None:
        """Wait until every site is connected."""
        with self.line() as line:

            def all_here() -> bool:
                self.federation.require_alive()
                return line.server().connected == len(SITES)

            wait_until(all_here)

    # --- Processes --------------------------------------------------------------------------------

    def server_processes(self) -> dict[str, psutil.Process]:
        """Return the supervisor, its link, and the process of its study where one runs."""
        supervisor = psutil.Process(self.federation.child(SERVER_FOLDER).pid)
        found = {"supervisor": supervisor}
        for child in supervisor.children():
            words = " ".join(child.cmdline())
            found["link" if "link.process" in words else "study"] = child
        return found

    def site_processes(self, name: str) -> list[psutil.Process]:
        daemon = psutil.Process(self.federation.child(name).pid)
        return [daemon, *daemon.children()]

    def thaw(self) -> None:
        """Let every process that was stopped go on."""
        for name in (SERVER_FOLDER, *SITES):
            child = self.federation._children.get(name)
            if child is None or child.exit_code is not None:
                continue
            process = psutil.Process(child.pid)
            for one in (process, *process.children(recursive=True)):
                one.send_signal(signal.SIGCONT)

    @contextmanager
    def in_environment(self, more: Mapping[str, str]) -> Iterator[None]:
        """Start processes with more in their environment."""
        before = dict(self.federation._environment)
        self.federation._environment.update(more)
        try:
            yield
        finally:
            self.federation._environment.clear()
            self.federation._environment.update(before)

    def kill_site(self, name: str) -> None:
        """Kill a site's daemon; its worker ends with it."""
        self.site_processes(name)[0].kill()
        wait_until(lambda: self.federation.child(name).exit_code is not None)

    def kill_server(self) -> None:
        """Kill the server; its processes end with it."""
        self.server_processes()["supervisor"].kill()
        wait_until(lambda: self.federation.child(SERVER_FOLDER).exit_code is not None)

    # --- Faults -----------------------------------------------------------------------------------

    def arm(
        self, do: str, point: str, call: int, who: str = "", after: bool = False, name: str = "a"
    ) -> None:
        """Have something done at the n-th call of a function from now on, once."""
        plan = {"do": do, "point": point, "call": call, "who": who, "after": after}
        whole = self.plans / f"{name}.part"
        whole.write_text(json.dumps(plan))
        whole.rename(self.plans / f"{name}.json")

    def wait_reached(self, name: str = "a") -> None:
        wait_until(lambda: (self.plans / f"{name}.reached").exists())

    def disarm(self, name: str = "a") -> None:
        """Let a plan that is always done be done no more."""
        (self.plans / f"{name}.json").unlink(missing_ok=True)

    def go(self, name: str = "a") -> None:
        """Let go on what is held."""
        (self.plans / f"{name}.go").touch()

    def calls(self, point: str, who: str) -> int:
        """Return how often a function was called since the last :meth:`restore`."""
        lines = (self.plans / "calls.log").read_text().splitlines()
        return Counter(lines)[f"{point} {who}"]

    # --- Runs -------------------------------------------------------------------------------------

    @contextmanager
    def line(self) -> Iterator[ServerLine]:
        with server_at(str(self.federation.server)) as line:
            yield line

    def submit(self, study: Study) -> str:
        with self.line() as line:
            return line.submit(Submission(study.to_toml(), "toml", SITES)).run

    def await_end(self, run: str) -> RunDetails:
        """Wait until a run has ended (I5: it does, in time)."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self.line() as line:
                details = line.show(run)
            if details.summary.is_over:
                return details
            assert time.monotonic() < until, f"hangs: {details.summary}"
            time.sleep(0.2)

    def finish(self, run: str) -> RunDetails:
        details = self.await_end(run)
        assert details.summary.state == "finished", details.summary.message
        return details

    def model(self, run: str) -> str:
        return bits_of(RunFolder(self.federation.server, run).model_path)

    def finish_as_simulated(self, run: str, expected: str = "") -> RunDetails:
        """Wait for a run; its model is the simulated one, bit for bit.

        Args:
            expected: Its bits; those of the plain study otherwise.
        """
        details = self.finish(run)
        bits = expected or self.expected
        assert self.model(run) == bits, "another model than without the fault"
        return details


def refusals_of(details: RunDetails) -> Mapping[tuple[int, str], str]:
    """Return the reason for each refused training, by round and site."""
    return {
        (report.round, one.site): one.reason
        for report in details.history
        for one in report.refusals
        if one.asked == "training"
    }


def bits_of(model: Path) -> str:
    return digest(load_model(model).parameters)


def wait_until(what: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def copy_folder(source: Path, target: Path) -> None:
    """Put a copy of a folder in the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def flip_byte(path: Path, place: int) -> None:
    """Change one byte of a file where it lies."""
    with path.open("r+b") as stream:
        stream.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
