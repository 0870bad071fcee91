"""The comparison models: each site alone, all data pooled, and the federation without privacy.

As many are trained at a time as cores allow.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from wardround.common.errors import RunError, WardroundError
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.system.limits import threads_each
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study
from wardround.common.study.variants import plain, without_privacy
from wardround.simulations.engines.start_method import choose_context, start
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.training import Baseline, train_baseline
from wardround.simulations.run_files.events import Event, Watch
from wardround.simulations.run_files.folder import POOLED, UNPROTECTED, local_model

if TYPE_CHECKING:
    from wardround.common.runtime.system.workers import StartContext

# A baseline's process sends its events, then None; or the reason why it failed.
_Word: TypeAlias = Event | str | None
_Pipe: TypeAlias = "Connection[_Word, _Word]"


def baselines_of(study: Study, folders: Sequence[Path], pooled: Path) -> list[Baseline]:
    """Return what a study is compared with, the longest first.

    A strategy is about several sites, and privacy is what a hospital asks for before it gives
    anything away: alone, the study is followed without both.

    Args:
        folders: The sites.
        pooled: A site folder with all sites' examinations.
    """
    standalone, unused = without_privacy(plain(study)), _unused(study)
    single = [
        Baseline(local_model(folder.name), (folder,), standalone, unused) for folder in folders
    ]
    baselines = [Baseline(POOLED, (pooled,), standalone, unused), *single]
    if what_leaves(study).noise_added_by == "nobody":
        return baselines
    return [Baseline(UNPROTECTED, tuple(folders), without_privacy(study)), *baselines]


def _unused(study: Study) -> Parameters:
    """Return what a strategy's objective adds to the network, which a site alone does not train."""
    if plan_of(study).objective != "coral":
        return {}
    from wardround.common.models.networks.feature_moments import untouched_moments
    from wardround.common.models.networks.registry import build_network

    return untouched_moments(build_network(study, study.federation.seed))


def train_baselines(
    run_folder: Path, baselines: Sequence[Baseline], machine: Machine, watch: Watch
) -> None:
    """Train all baselines, the first ones first.

    On the CPU each runs in a process of its own with one thread, a core each; they share nothing.
    On a GPU they run one after the other in this process; and beside Ray, whose threads in this
    process a fork would not survive.

    Raises:
        RunError: A baseline failed.
    """
    devices = machine.devices_for(len(baselines))
    if machine.engine in ("ray", "stacked"):  # the latter has several sites, a baseline one
        machine = replace(machine, engine="in-process")
    if machine.engine == "in-process" or len(devices) == 1 or devices[0] != "cpu":
        for baseline in baselines:
            train_baseline(run_folder, baseline, machine, watch)
        return
    standalone = replace(
        machine,
        engine="in-process",
        workers=1,
        threads=machine.threads or threads_each(len(devices)),
    )
    waiting, context = deque(baselines), choose_context(devices)
    running: dict[_Pipe, BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < len(devices):
                pipe, process = _start(context, run_folder, waiting.popleft(), standalone)
                running[pipe] = process
            for pipe in [p for p in running if p in wait(list(running))]:
                _listen(pipe, running, watch)
    finally:
        for process in running.values():
            process.kill()  # it shares nothing, and starts anew when the run is resumed
            process.join()


def _listen(
    pipe: _Pipe,
    running: dict[_Pipe, BaseProcess],
    watch: Watch,
) -> None:
    try:
        word = pipe.recv()
    except EOFError:
        word = "its process ended (out of memory?)"
    if isinstance(word, str):
        msg = (
            f"a comparison model could not be trained: {word} Resume the run, or use --no-compare."
        )
        raise RunError(msg)
    if word is None:
        running.pop(pipe).join()
        pipe.close()
    else:
        watch(word)


def _start(
    context: "StartContext", run_folder: Path, baseline: Baseline, machine: Machine
) -> tuple[_Pipe, BaseProcess]:
    ours, theirs = context.Pipe(duplex=False)
    process = start(context, _train, (theirs, run_folder, baseline, machine))
    theirs.close()
    return ours, process


def _train(
    pipe: _Pipe,
    run_folder: Path,
    baseline: Baseline,
    machine: Machine,
) -> None:
    try:
        train_baseline(run_folder, baseline, machine, pipe.send)
        pipe.send(None)
    except WardroundError as error:
        pipe.send(str(error))
