"""A whole federation on one machine: server and sites as processes, joined over TLS, one study."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from wardround.client.policy.approvals import decide
from wardround.client.policy.policy import OPEN_POLICY, POLICY_FILE
from wardround.common.errors import RunError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.files.packages.references import MONAI
from wardround.common.runtime.system.limits import threads_each
from wardround.common.runtime.system.required import require_linux
from wardround.common.security.peers import write_peers
from wardround.common.study.study import Study
from wardround.server.operators.client import ServerLine, server_at
from wardround.server.operators.messages import RoundReport, RunDetails, Submission
from wardround.server.operators.wire import SOCKET_FILE, socket_target
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.experiment.federation import introduce
from wardround.simulations.local_federation.processes import SERVER_FOLDER, LocalFederation
from wardround.simulations.run_files.events import (
    RoundDone,
    SiteFailed,
    StageFinished,
    StageStarted,
    Watch,
)
from wardround.simulations.run_files.folder import new_folder
from wardround.simulations.sites.preparation import prepare_sites

STAGE = "federation"
_LOOK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class TryRequest:
    """What is to be tried.

    Attributes:
        out: Gets everything; must be new or empty.
        data_root: Where real data sets lie; None for the environment's.
        threads: CPU threads of each site's worker; 0 shares the cores.
    """

    study: Study
    out: Path
    data_root: Path | None = None
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it.

    Attributes:
        model: The file of the kept model.
    """

    details: RunDetails
    model: Path
    sites: tuple[Path, ...]
    server: Path


def try_federation(request: TryRequest, watch: Watch) -> Tried:
    """Split the data, start server and sites, let them join, run the study, end all of it.

    Raises:
        InputError: The data is absent, the folder cannot be used, or the system is not Linux.
        RunError: A process ended, or the study failed; the processes are ended, the files stay.
    """
    require_linux("'wardround federation try'")
    out, study = request.out, request.study
    socket_target(out / SERVER_FOLDER / SOCKET_FILE)
    new_folder(out, "choose another --out")
    watch(StageStarted("data"))
    sites = prepare_sites(study, out, request.data_root).folders
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    for folder in sites:
        write_trial_policy(folder, study)
    watch(StageFinished("data"))
    threads = request.threads or threads_each(len(sites))
    with LocalFederation(out, {"OMP_NUM_THREADS": str(threads)}) as federation:
        begin(federation, sites, watch)
        if study.federation.secure_aggregation:
            write_peers(federation.server, introduce(sites))
        for folder in sites:
            decide(folder, study.digest, "approved")
        with server_at(str(federation.server)) as line:
            details = _run(line, federation, study, [folder.name for folder in sites], watch)
    summary = details.summary
    if summary.state != "finished":
        msg = f"the study {summary.state}: {summary.message} The logs are in {out}."
        raise RunError(msg)
    model = RunFolder(federation.server, summary.run).model_path
    return Tried(details, model, sites, federation.server)


def begin(federation: LocalFederation, sites: Sequence[Path], watch: Watch) -> None:
    """Make and start the server; have each site join it, and start its daemon.

    Raises:
        RunError: A process does not start.
    """
    watch(StageStarted("server"))
    federation.make_server()
    federation.start_server()
    watch(StageFinished("server"))
    watch(StageStarted("joining"))
    for folder in sites:
        federation.join(folder)
    for folder in sites:
        federation.start_site(folder)
    watch(StageFinished("joining"))


def write_trial_policy(folder: Path, study: Study) -> None:
    """Have a simulated site behave as a hospital that rounds nothing: each study is approved."""
    changes = {
        "approved": (),
        "simulated": False,
        "lifetime_delta": study.privacy.delta,
        "packages": tuple(study.packages.items()),
        "networks": tuple(dict.fromkeys((*OPEN_POLICY.networks, *_of_monai(study)))),
    }
    policy = OPEN_POLICY.model_copy(update=changes)
    text = tomli_w.dumps(policy.model_dump(mode="json", exclude_defaults=True))
    text = f"# A site of a try on one machine; no hospital says this.\n{text}"
    replace_file(folder / POLICY_FILE, text.encode(), READABLE)


def _of_monai(study: Study) -> tuple[str, ...]:
    return (study.model.network,) if study.model.network.startswith(MONAI) else ()


def _run(
    line: ServerLine, federation: LocalFederation, study: Study, sites: Sequence[str], watch: Watch
) -> RunDetails:
    run = line.submit(Submission(study.to_toml(), "toml", tuple(sites))).run
    watch(StageStarted("sites"))
    told, has_begun = 0, False
    while True:
        federation.require_alive()
        details = line.show(run)
        if not has_begun and (details.summary.state == "running" or details.summary.is_over):
            watch(StageFinished("sites"))
            watch(StageStarted(STAGE, study.federation.rounds))
            has_begun = True
        for report in details.history[told:]:
            if report.round <= details.summary.round:
                _tell(watch, report, details)
                told += 1
        if details.summary.is_over:
            watch(StageFinished(STAGE))
            return details
        time.sleep(_LOOK_SECONDS)


def _tell(watch: Watch, report: RoundReport, details: RunDetails) -> None:
    for refusal in report.refusals:
        watch(SiteFailed(STAGE, report.round, refusal.site, refusal.reason))
    value = math.nan if report.value is None else report.value
    watch(
        RoundDone(
            stage=STAGE,
            round=report.round,
            rounds=details.summary.rounds,
            metric=details.summary.metric,
            value=value,
            updates=len(report.sites),
            seconds=report.seconds,
        )
    )
