"""A study planned in simulation: the sites' statistics, asked as a server asks real ones."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from wardround.client.policy.policy import OPEN_POLICY, POLICY_FILE, Policy
from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.runtime.seeds import derive_seed
from wardround.common.study.loading import parse_study, require_simulation, with_changes
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected, collect_statistics
from wardround.server.planning.study_plan import StudyPlan, plan_study
from wardround.server.sites.exchange import Node
from wardround.simulations.experiment.federation import Machine, open_grid
from wardround.simulations.sites.preparation import prepare_sites


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a user asks for.

    Attributes:
        study: The study that is to be planned; it need not ask for statistics.
        data_root: Where real data sets lie; None for the environment's.
        assignment: A saved split to use instead of drawing one.
        smallest_cell: Of the simulated sites' policies; with 1 they leave nothing out.
    """

    study: Study
    machine: Machine = field(default_factory=Machine)
    data_root: Path | None = None
    assignment: Path | None = None
    smallest_cell: int = 1
    skip_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedPlan:
    """A plan, and the one that the data in one place would give.

    Attributes:
        pooled: None where the two are the same by construction: nothing is left out, and there is
            no noise.
    """

    plan: StudyPlan
    pooled: StudyPlan | None


def asking(study: Study) -> Study:
    """Return the study that asks for the statistics of another, and trains nothing.

    Raises:
        StudyError: It cannot be asked so.
    """
    return with_changes(study, {"statistics.ask": True}, origin="the study that asks")


def plan_in_simulation(request: PlanRequest) -> SimulatedPlan:
    """Divide the study's data between sites, ask them, and plan the study.

    Raises:
        InputError: The data is absent, or cannot be split as asked.
        RunError: Too few sites gave statistics, or they hold too little.
    """
    request.machine.check()
    study = asking(request.study)
    if request.assignment is None:
        require_simulation(study)
    with tempfile.TemporaryDirectory(prefix="wardround-plan-") as folder:
        sites = prepare_sites(
            study, Path(folder), request.data_root, request.assignment, request.skip_unreadable
        )
        for site in sites.folders:
            _write_policy(site, study, request.smallest_cell)
        said = _asked(sites.folders, study, request.machine)
        plan = plan_study(said, study)
        exact_already = request.smallest_cell == 1 and study.privacy.mode != "patient"
        if exact_already or study.statistics.combat:
            return SimulatedPlan(plan, None)
        pooled = _exact(study)
        exact = plan_study(_asked((sites.pooled,), pooled, request.machine), pooled, study)
        return SimulatedPlan(plan, exact)


def _exact(study: Study) -> Study:
    """Return the study that asks one site for the same histograms, without noise."""
    content = study.model_dump(mode="python", exclude_unset=True)
    content.pop("privacy", None)
    content["statistics"].pop("epsilon", None)
    content.setdefault("federation", {})["minimum_sites"] = 1
    return parse_study(content)


def _asked(folders: Sequence[Path], study: Study, machine: Machine) -> Collected:
    nodes = [Node(derive_seed("node", folder.name), folder.name, 0) for folder in folders]
    with open_grid(folders, study, machine) as grid:
        return collect_statistics(grid, study, nodes)


def _write_policy(folder: Path, study: Study, smallest_cell: int) -> None:
    """Have a simulated site leave out and round as a hospital with this policy would."""
    changes: dict[str, object] = {"lifetime_delta": study.privacy.delta}
    if smallest_cell > 1:
        changes |= {"smallest_cell": smallest_cell, "smallest_cohort": smallest_cell}
        changes["metrics"] = "values"
    policy = Policy.model_validate({**OPEN_POLICY.model_dump(), **changes})
    text = tomli_w.dumps(policy.model_dump(mode="json", exclude_defaults=True))
    try:
        replace_file(folder / POLICY_FILE, f"# A simulated site.\n{text}", BY_UMASK, durable=False)
    except OSError as error:
        msg = f"cannot write the site folder {folder} ({error.strerror}): make room on the disk."
        raise InputError(msg) from None
