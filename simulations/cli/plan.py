"""What ``wardround study plan`` does once its words are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import READABLE, replace_file
from wardround.common.runtime.printable import word, write_lines
from wardround.common.study.sections.combat import CombatSection
from wardround.common.study.study import Study
from wardround.simulations.cli.simulate import Options, resolve_study

if TYPE_CHECKING:
    from torch import Tensor

    from wardround.server.planning.study_plan import StudyPlan

_TAILS = {"0.5th": 0.005, "99.5th": 0.995}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The words of a command line.

    Attributes:
        run: What a simulation is asked for.
        out: The planned study.
        smallest_cell: Of the simulated sites' policies.
        server: A server whose sites are asked, instead of a simulation's.
        asked: A run of that server that has asked them.
    """

    run: Options
    out: Path
    smallest_cell: int = 1
    server: str | None = None
    identity: Path | None = None
    sites: tuple[str, ...] = ()
    asked: str | None = None


def run_plan(options: PlanOptions) -> None:
    """Plan a study from statistics, or hand in the study that asks for them.

    Raises:
        InputError: Something asked for cannot be done.
        RunError: Too few sites gave statistics, or they hold too little.
    """
    study = resolve_study(options.run)
    if options.server is None:
        _refuse_server_words(options)
        _simulated(study, options)
    elif options.asked is None:
        _handed_in(study, options)
    else:
        _from_run(study, options)


def _refuse_server_words(options: PlanOptions) -> None:
    given = {"--run": options.asked, "--site": options.sites, "--identity": options.identity}
    if words := [name for name, value in given.items() if value]:
        msg = f"{', '.join(words)} is about a server's sites: name it with --server."
        raise InputError(msg)


def _simulated(study: Study, options: PlanOptions) -> None:
    from wardround.simulations.experiment.federation import Machine
    from wardround.simulations.experiment.planning import PlanRequest, plan_in_simulation

    _require_new(options.out)
    run = options.run
    request = PlanRequest(
        study,
        Machine(device="cpu", threads=run.threads),
        run.data_root,
        run.assignment,
        options.smallest_cell,
        run.skip_unreadable,
    )
    found = plan_in_simulation(request)
    _write(study, found.plan, options.out)
    if found.pooled is not None:
        write_lines("\n".join(deviation_lines(found.plan, found.pooled)) + "\n")


def _handed_in(study: Study, options: PlanOptions) -> None:
    from wardround.server.operators.client import server_at
    from wardround.server.operators.messages import Submission
    from wardround.simulations.experiment.planning import asking

    server = str(options.server)
    text = asking(study).to_toml()
    with server_at(server, options.identity) as line:
        done = line.submit(Submission(text, "toml", options.sites))
    write_lines(
        f"Run {done.run} asks the sites for statistics, digest {done.digest}: each hospital has "
        "to approve it, and trains nothing for it.\n"
        f"When it is over: wardround study plan {word(options.run.study)} --server {word(server)} "
        f"--run {done.run} --out {word(options.out)}\n"
    )


def _from_run(study: Study, options: PlanOptions) -> None:
    from wardround.common.parameters.arithmetic import digest
    from wardround.server.operators.client import server_at
    from wardround.server.planning.collection import from_parameters
    from wardround.server.planning.study_plan import plan_study
    from wardround.simulations.experiment.planning import asking

    _require_new(options.out)
    asked, run = asking(study), str(options.asked)
    with server_at(str(options.server), options.identity) as line:
        summary = line.show(run).summary
        if summary.digest != asked.digest:
            msg = (
                f"run {run} asked for another study's statistics ({summary.digest[:12]}, not "
                f"{asked.digest[:12]}): give the study as it was when the run was handed in."
            )
            raise InputError(msg)
        parts = list(line.model(run))
    parameters = _loaded(b"".join(part.data for part in parts))
    if not parts or digest(parameters) != parts[0].digest:
        msg = "what came is not what the run's log speaks of: fetch it again."
        raise RunError(msg)
    _write(study, plan_study(from_parameters(parameters, asked), asked), options.out)


def _loaded(content: bytes) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError:
        msg = "what came is no file of statistics: fetch it again."
        raise RunError(msg) from None


def _require_new(path: Path) -> None:
    if path.exists():
        msg = f"{path} exists already: choose another --out."
        raise InputError(msg)


def _write(study: Study, plan: "StudyPlan", out: Path) -> None:
    from wardround.server.planning.study_file import planned_study, sites_in_words, study_text

    planned = planned_study(study, plan)
    try:
        replace_file(out, study_text(planned, plan).encode(), READABLE)
    except OSError as error:
        msg = f"cannot write {out} ({error.strerror}): choose another --out."
        raise InputError(msg) from None
    lines = [f"{len(plan.sites)} sites: {sites_in_words(plan)}"]
    lines += [
        f"{one.key} = {_shown(one.value)}   {one.reason}" for one in plan.values if one.reason
    ]
    lines.append(
        f"Wrote {out}, digest {planned.digest}. Read it, then: wardround study check {word(out)}"
    )
    write_lines("\n".join(lines) + "\n")


def deviation_lines(plan: "StudyPlan", pooled: "StudyPlan") -> list[str]:
    """Return how a plan differs from the one that the data in one place would give."""
    lines = ["Beside the data in one place:"]
    for one in pooled.values:
        here = plan.value(one.key)
        if one.reason and here != one.value:
            lines.append(f"  {one.key}: {_shown(here)}, and {_shown(one.value)} from all data")
    for name, histogram in plan.merged.items():
        whole = pooled.merged[name]
        if not name.startswith(("intensity", "foreground-")) or name == "foreground-share":
            continue
        for title, share in _TAILS.items():
            bins = round((histogram.quantile(share) - whole.quantile(share)) / whole.asked.step)
            lines.append(f"  {name}: the {title} percentile is {bins:+d} bins away")
    if len(lines) == 1:
        lines.append("  no difference")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, CombatSection):
        names = ", ".join(value.features)
        return f"of {names} at {len(value.sites)} sites"
    return str(list(value)) if isinstance(value, tuple) else str(value)
