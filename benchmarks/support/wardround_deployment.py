"""The job by wardround's own processes: a server and two daemons, mutual TLS on loopback."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from benchmarks.support.deployed_run import DeployedRun
from benchmarks.support.federation_job import SITES, Perceptron, make_study
from benchmarks.support.live_processes import UsageWatch
from benchmarks.support.processes import run_timed
from benchmarks.support.watching import watching
from wardround.client.policy.approvals import decide
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.operators.client import ServerLine, server_at
from wardround.server.operators.messages import RunDetails, Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import begin, write_trial_policy
from wardround.simulations.sites.preparation import prepare_sites

_LOOK_SECONDS = 1.0


def run_wardround(
    folder: Path,
    network: Perceptron,
    rounds: int,
    deadline_seconds: float,
    names: Sequence[str] = SITES,
    meanwhile: Callable[[LocalFederation], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> DeployedRun:
    """Start everything, run the study, end everything.

    Args:
        folder: New; gets ``server/`` and ``logs/``.
        names: Of the sites.
        meanwhile: Goes on as long as the study, once all processes are started.

    Raises:
        RunError: A process ended.
    """
    study = make_study(folder / "data", network, rounds, names)
    sites = prepare_sites(study, folder).folders
    for site in sites:
        write_trial_policy(site, study)
    started = time.time()
    with (
        watching(UsageWatch()) as watch,
        LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as federation,
    ):
        begin(federation, sites, lambda event: None)
        for site in sites:
            decide(site, study.digest, "approved")
        with meanwhile(federation), server_at(str(federation.server)) as line:
            run = line.submit(Submission(study.to_toml(), "toml", tuple(names))).run
            details = _await_end(line, run, federation.require_alive, deadline_seconds)
        usage = watch.usage
    checkpoints = RunFolder(federation.server, run).checkpoints
    return DeployedRun(started, _stamps(checkpoints), usage, _failure(details, folder))


def _await_end(
    line: ServerLine, run: str, require_alive: Callable[[], None], deadline_seconds: float
) -> RunDetails:
    until = time.monotonic() + deadline_seconds
    while True:
        require_alive()
        details = line.show(run)
        if details.summary.is_over or time.monotonic() > until:
            return details
        time.sleep(_LOOK_SECONDS)


def run_simulated(folder: Path, network: Perceptron, rounds: int) -> DeployedRun:
    """Run the same study in one process, where nothing is sent.

    Raises:
        RuntimeError: It failed.
    """
    study = make_study(folder / "data", network, rounds)
    path, out = folder / "study.toml", folder / "out"
    path.write_text(study.to_toml())
    command = [sys.executable, "-m", "wardround.cli", "simulate", str(path), "--out", str(out)]
    flags = ["--no-compare", "--engine", "in-process", "--threads", "1", "--json"]
    started = time.time()
    with watching(UsageWatch()) as watch:
        run_timed([*command, *flags], {"OMP_NUM_THREADS": "1"})
        usage = watch.usage
    return DeployedRun(started, _stamps(out / "checkpoints" / "federated"), usage)


def _stamps(checkpoints: Path) -> tuple[float, ...]:
    """Return when each round was committed; the record after the last one only measures."""
    history = CheckpointStore(checkpoints).history_path
    lines = history.read_text().splitlines() if history.exists() else []
    records = [json.loads(line) for line in lines]
    return tuple(record["written_at"] for record in records if record["sites"])


def _failure(details: RunDetails, folder: Path) -> str:
    """Return what was not as it should be, in words."""
    if details.summary.state != "finished":
        return f"{details.summary.state}: {details.summary.message}"
    if details.refusals:
        return f"{details.refusals[0].site}: {details.refusals[0].reason}"
    locked = [log.name for log in folder.rglob("*.log") if "is locked" in log.read_text()]
    return f"'is locked' in {locked[0]}" if locked else ""
