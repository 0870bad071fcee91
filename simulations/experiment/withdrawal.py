"""A site, or patients of one, taken out of a simulated run: its rounds repeated as if never there.

The repeat is a run folder of its own, with the site folders as they were and their ledgers and
audit logs going on; the run that it repeats stays as it is. Its keys are all of this machine: what
the certificate proves here is that nothing of it was changed.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import wardround
from wardround.client.data.manifest.parts.forgetting import (
    count_forgotten,
    forget_patients,
    forgotten_patients,
    listed_patients,
    used_patients,
)
from wardround.client.site.folder import KEY_FOLDER, open_site
from wardround.common.errors import InputError, RunError, known_names
from wardround.common.files.lock import held_alone
from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.parameters.arithmetic import digest
from wardround.common.security.signing_key import open_key
from wardround.common.security.withdrawal.certificate import (
    CERTIFICATE_FILE,
    SignedCertificate,
    open_certificate,
    sign_certificate,
)
from wardround.common.security.withdrawal.request import (
    SignedRequest,
    WithdrawalRequest,
    Without,
    sign_request,
)
from wardround.common.study.loading import load_study
from wardround.common.study.sections.simulation import Adversary, SimulationSection
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.rounds.repeating import Parent, certificate_of, prepare_repeat
from wardround.server.sites.withdrawal import (
    WithdrawalPlan,
    plan_withdrawal,
    require_no_parent_of,
    study_without,
)
from wardround.server.sites.withdrawal_requests import read_repeat, write_repeat
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import resume
from wardround.simulations.experiment.training import checkpoints_of, load_trained
from wardround.simulations.run_files.events import Watch, nobody
from wardround.simulations.run_files.folder import (
    FEDERATED,
    SplitRow,
    new_folder,
    read_facts,
    write_facts,
)
from wardround.simulations.sites.assignment import ASSIGNMENT, AssignmentRow
from wardround.simulations.sites.left import LeftRow, left_rows, write_left

_KEYS = "signing"


@dataclass(frozen=True, slots=True)
class WithdrawalRequested:
    """What a user asks for.

    Attributes:
        run: The run folder that is repeated.
        site: Which site leaves, or has patients who do.
        patients: Who leaves; none where the site does.
        out: The run folder of the repeat: new, or one that was begun so.
    """

    run: Path
    site: str
    out: Path
    patients: tuple[str, ...] = ()
    machine: Machine = field(default_factory=Machine)
    command: tuple[str, ...] = ()

    @property
    def without(self) -> Without:
        """What leaves."""
        return "patients" if self.patients else "site"


def plan_of_run(asked: WithdrawalRequested) -> WithdrawalPlan:
    """Return what the withdrawal would repeat; nothing is changed.

    Raises:
        InputError: The folder is no run, or the run has nothing of the site.
        RunError: The run has no commit.
    """
    read_facts(asked.run)
    study = load_study(asked.run / "study.toml")
    store = CheckpointStore(checkpoints_of(asked.run, FEDERATED))
    plan = plan_withdrawal(store, study, asked.site, asked.without)
    _require_patients_of_site(asked)
    require_no_parent_of(asked.site, _parents(study))
    for adversary in study.simulation.adversary:
        if adversary.count is not None:
            msg = (
                "simulation.adversary draws its sites by count, and others would be drawn without "
                f"{asked.site}: name them in the study, and run it again."
            )
            raise InputError(msg)
    return plan


def _require_patients_of_site(asked: WithdrawalRequested) -> None:
    if not asked.patients:
        return
    folder = asked.run / "sites" / asked.site
    used = used_patients(folder, asked.patients) - forgotten_patients(folder, asked.patients)
    # Rows of a later wave are of no use to this run, and of patients who leave all the same.
    known = used | listed_patients(open_site(folder), asked.patients)
    unknown = len(asked.patients) - (len(known) if used else 0)
    if unknown:
        msg = (
            f"{unknown} of {len(asked.patients)} patients who are to leave are none of "
            f"{asked.site!r} in this run: name patients as its manifest does, and no others."
        )
        raise InputError(msg)


def _parents(study: Study) -> Iterator[tuple[str, CheckpointStore]]:
    """Yield the runs that a simulated study goes on from, the nearest first."""
    seen = set[Path]()
    while study.simulation.parent is not None:
        folder = Path(study.simulation.parent)
        if folder in seen or not (folder / "study.toml").exists():
            return
        seen.add(folder)
        yield folder.name, CheckpointStore(checkpoints_of(folder, FEDERATED))
        study = load_study(folder / "study.toml")


def withdraw(asked: WithdrawalRequested, watch: Watch = nobody) -> SignedCertificate:
    """Repeat a run without a site, or without patients of it; go on where a repeat was stopped.

    Raises:
        InputError: The run has nothing of the site, or the folder holds something else.
        RunError: Too few sites replied, or the disk cannot be used.
        KeyboardInterrupt: The user stopped it; the same call goes on.
    """
    if not (asked.out / "run.json").exists():
        _begin(asked, plan_of_run(asked))
    if not _is_repeat_of(asked):
        msg = f"{asked.out} holds another run: choose a folder that is new."
        raise InputError(msg)
    resume(asked.out, asked.machine, watch)
    record, study = read_repeat(asked.out), load_study(asked.out / "study.toml")
    trained = load_trained(asked.out, FEDERATED)
    checkpoints = checkpoints_of(asked.out, FEDERATED)
    if trained is None or record is None:
        msg = f"{asked.out} has no finished model: start the same command again."
        raise InputError(msg)
    commit = CheckpointStore(checkpoints).load(trained.round)
    kept = replace(commit, parameters=trained.parameters)
    line = sign_certificate(
        open_key(asked.out / _KEYS, durable=False, owner="server"),
        certificate_of(record, study, checkpoints, kept),
    )
    (asked.out / CERTIFICATE_FILE).write_bytes(line + b"\n")
    return open_certificate(line)


def _is_repeat_of(asked: WithdrawalRequested) -> bool:
    """Whether the folder was begun by the same withdrawal: of this run, site and patients."""
    record = read_repeat(asked.out)
    if record is None or (record.site, record.without) != (asked.site, asked.without):
        return False
    if record.parent.study != load_study(asked.run / "study.toml").digest:
        return False
    if not asked.patients:
        return True
    before, after = (folder / "sites" / asked.site for folder in (asked.run, asked.out))
    left = count_forgotten(after) - count_forgotten(before)
    return left == len(asked.patients) == len(forgotten_patients(after, asked.patients))


def _begin(asked: WithdrawalRequested, plan: WithdrawalPlan) -> None:
    """Write the run folder of a repeat, up to its first round; whole, or not at all."""
    new_folder(asked.out, "choose another --out")
    refusal = RunError(f"another process works on {asked.out}: wait for it, or end it.")
    with held_alone(asked.out, refusal):  # whoever fails below takes the folder away
        new_folder(asked.out, "choose another --out")
        _write_begin(asked, plan)


def _write_begin(asked: WithdrawalRequested, plan: WithdrawalPlan) -> None:
    run, out = asked.run, asked.out
    try:
        study = load_study(run / "study.toml")
        request = _request(asked, study)
        study = _without(study_without(study, plan, request.digest), asked)
        gone = asked.site if asked.without == "site" else ""
        _copy_sites(asked, gone)
        finished = load_trained(run, FEDERATED)
        parent = Parent(
            run.name,
            CheckpointStore(checkpoints_of(run, FEDERATED)),
            None if finished is None else (digest(finished.parameters), finished.round),
        )
        target = CheckpointStore(checkpoints_of(out, FEDERATED), durable=False)
        write_repeat(out, prepare_repeat(parent, target, plan, request, study))
        (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
        facts = read_facts(run)
        write_facts(
            out,
            replace(
                facts,
                wardround=wardround.__version__,
                command=asked.command,
                digest=study.digest,
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                status="interrupted",
                finished=None,
                seconds={},
                best_round=-1,
                missed={},
                notes=(*facts.notes, *plan.words()),
            ),
        )
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _request(asked: WithdrawalRequested, study: Study) -> SignedRequest:
    said = WithdrawalRequest(
        study=study.digest,
        site=asked.site,
        server="",
        without=asked.without,
        time=int(time.time()),
    )
    return sign_request(open_key(asked.run / "sites" / asked.site / KEY_FOLDER, False), said)


def _without(study: Study, asked: WithdrawalRequested) -> Study:
    """Return the study with a simulation that the site has no part in; the digest knows none."""
    simulation: SimulationSection = study.simulation
    changes: dict[str, object] = {"compare": False, "keep_updates_mb": 0}
    if asked.without == "site":
        changes["late"] = {s: r for s, r in simulation.late.items() if s != asked.site}
        changes["adversary"] = tuple(_honest(simulation.adversary, asked.site))
    return study.model_copy(update={"simulation": simulation.model_copy(update=changes)})


def _honest(adversaries: tuple[Adversary, ...], site: str) -> list[Adversary]:
    left = []
    for one in adversaries:
        sites = tuple(name for name in one.sites if name != site)
        if sites:
            left.append(one.model_copy(update={"sites": sites}))
    return left


def _copy_sites(asked: WithdrawalRequested, gone: str) -> None:
    """Copy the site folders: who is there, what was spent, what left; not what is prepared."""
    run, out = asked.run, asked.out
    rows = read_kept_table(run / "split.csv", SplitRow)
    names = tuple(dict.fromkeys(row.site for row in rows))
    if asked.site not in names:
        raise InputError(known_names("site", asked.site, names))
    write_table(out / "split.csv", [row for row in rows if row.site != gone], SplitRow)
    for name in names:
        if name != gone:
            shutil.copytree(
                run / "sites" / name,
                out / "sites" / name,
                ignore=shutil.ignore_patterns("state"),
            )
    if asked.patients:
        forget_patients(open_site(out / "sites" / asked.site), asked.patients)
    _tell_who_left(asked, gone)


def _tell_who_left(asked: WithdrawalRequested, gone: str) -> None:
    """Write who is still there and who is not, for a study that goes on from the repeat."""
    run, out = asked.run, asked.out
    placed = read_kept_table(run / ASSIGNMENT, AssignmentRow)
    leavers = set(asked.patients)
    kept = [row for row in placed if row.site != gone and row.patient not in leavers]
    write_table(out / ASSIGNMENT, kept, AssignmentRow)
    own = [LeftRow(asked.site, patient) for patient in asked.patients or ("",)]
    write_left(out, (*left_rows(run), *own))
