"""What the researcher's commands do once their words are read."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.common.errors import InputError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.studies import find_study
from wardround.simulations.studies.recipes import cost_words, with_recipe

if TYPE_CHECKING:
    from wardround.simulations.experiment.federation import Machine
    from wardround.simulations.run_files.events import Watch

Announce = Callable[[], None]
USUAL = "brain-tissue"  # the study of who names none


@dataclass(frozen=True, slots=True)
class Options:
    """The words of a command line; None leaves it to the study.

    Attributes:
        ray: Address, CPUs and GPUs a site of the engine "ray".
        recipe: Of a built-in study: "fast", "default" or "best".
        privacy: Keys of ``[privacy]``, e.g. "epsilon=8,delta=1e-5".
        seeds: As typed, e.g. "0,1,2".
        track: The user's file; None for the one that lies in its place, if any does.
        watch: Whether a live page is served while it runs.
    """

    study: str
    recipe: str = "default"
    sites: int | None = None
    split: str | None = None
    rounds: int | None = None
    seed: int | None = None
    device: str = "auto"
    engine: str = "auto"
    workers: int = 0
    threads: int = 0
    ray: tuple[str | None, float, float | None] = (None, 1.0, None)
    data_root: Path | None = None
    assignment: Path | None = None
    changes: tuple[str, ...] = ()
    privacy: str | None = None
    out: Path | None = None
    resume: Path | None = None
    compare: bool = True
    leave_one_site_out: bool = False
    seeds: str | None = None
    also_unharmonised: bool = False
    skip_unreadable: bool = False
    quiet: bool = False
    as_json: bool = False
    track: Path | None = None
    watch: bool = False


def run_simulation(options: Options) -> int:
    """Simulate, show the progress, print the verdict, and return the exit code."""
    from wardround.simulations.run_files.series import holds_series

    several = options.leave_one_site_out or options.seeds is not None or options.also_unharmonised
    if several or (options.resume is not None and holds_series(options.resume)):
        from wardround.simulations.cli.series import run_several

        return run_several(options)
    machine, study = machine_of(options), None
    if options.resume is not None:
        check_alone(options)
        out = options.resume
    else:
        study = resolve_study(options)
        out = options.out or new_folder_for(study)
    with page_of(options, out) as announce:
        return _simulate(options, machine, study, (out, announce))


def machine_of(options: Options) -> "Machine":
    """Return the machine that is asked for.

    Raises:
        InputError: This one cannot be used so.
    """
    from wardround.simulations.engines.ray_engine import RayOptions
    from wardround.simulations.experiment.federation import Machine

    machine = Machine(
        options.device, options.engine, options.workers, options.threads, RayOptions(*options.ray)
    )
    machine.check()
    return machine


def _simulate(
    options: Options, machine: "Machine", study: Study | None, place: tuple[Path, Announce]
) -> int:
    from wardround.simulations.cli.summary import print_summary
    from wardround.simulations.experiment.simulate import SimulationRequest, simulate

    out, announce = place
    announce()
    cost = cost_words(options.study, options.recipe)
    if cost and study is not None and not options.quiet:
        sys.stderr.write(f"{cost}\n")

    def work(watch: "Watch") -> None:
        if study is None:
            _resume(out, machine, watch)
            return
        request = SimulationRequest(
            study=study,
            out=out,
            machine=machine,
            data_root=options.data_root,
            assignment=options.assignment,
            skip_unreadable=options.skip_unreadable,
            command=("wardround", *sys.argv[1:]),
        )
        simulate(request, watch)

    with tracked_by(options, out):
        is_done = watched(options, work, lambda: _farewell(out))
    if not is_done:
        return 130
    print_summary(out, as_json=options.as_json)
    return 0


@contextmanager
def page_of(options: Options, out: Path) -> Iterator[Announce]:
    """Serve the page of a run if it was asked for; give what says where it is.

    Its process starts while this one imports what a simulation needs.
    """
    if not options.watch:
        yield lambda: None
        return
    from wardround.simulations.report.live.beside import page_beside

    def tell(sentence: str) -> None:
        with suppress(OSError):  # the terminal may have been closed
            sys.stderr.write(f"{sentence}\n")
            sys.stderr.flush()

    with page_beside(out) as page:
        yield lambda: page.announce(tell)


def watched(options: Options, work: Callable[["Watch"], None], farewell: Callable[[], str]) -> bool:
    """Do work while its progress is shown; return whether it was not stopped by Ctrl-C."""
    from wardround.simulations.cli.progress import watching

    with watching(quiet=options.quiet or options.as_json) as watch:
        try:
            work(watch)
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may have been closed
                sys.stderr.write(f"\n{farewell()}\n")
            return False
    return True


@contextmanager
def tracked_by(options: Options, out: Path) -> Iterator[None]:
    """Have the user's trackers follow a run or series; what they were not told is said at its end.

    Raises:
        InputError: The user's file cannot be used; nothing was begun.
    """
    from wardround.common.monitoring.trackers.user_file import find_user_file
    from wardround.simulations.experiment.tracking.beside import tracked

    def say(sentence: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{sentence}\n")

    with tracked(out, find_user_file(options.track), say):
        yield


def _resume(out: Path, machine: "Machine", watch: "Watch") -> None:
    from wardround.simulations.experiment.simulate import resume
    from wardround.simulations.run_files.folder import read_facts

    was_finished = read_facts(out).status == "finished"
    resume(out, machine, watch)
    if was_finished:
        sys.stderr.write(f"{out} is finished: nothing is left to do, and nothing was changed.\n")


def _farewell(out: Path) -> str:
    if not (out / "run.json").exists():
        return "Stopped before the first round; nothing was written."
    again = f"wardround simulate --resume {shlex.quote(str(out))}"
    return f"Stopped. What is done is kept in {out}; go on with: {again}"


def check_alone(options: Options) -> None:
    """Refuse what a resumed run would silently ignore.

    Raises:
        InputError: Something else is asked for beside ``--resume``.
    """
    beside = {
        "the study": None if options.study == USUAL else options.study,
        "--recipe": None if options.recipe == "default" else options.recipe,
        "--sites": options.sites,
        "--split": options.split,
        "--rounds": options.rounds,
        "--seed": options.seed,
        "--data-root": options.data_root,
        "--assignment": options.assignment,
        "--set": options.changes or None,
        "--privacy": options.privacy,
        "--out": options.out,
        "--no-compare": None if options.compare else True,
        "--leave-one-site-out": options.leave_one_site_out or None,
        "--seeds": options.seeds,
        "--also-unharmonised": options.also_unharmonised or None,
        "--skip-unreadable": options.skip_unreadable or None,
    }
    given = [name for name, value in beside.items() if value is not None]
    if given:
        msg = (
            f"--resume goes on with the run as it began, so {', '.join(given)} cannot be changed: "
            "leave it out, or start a new run."
        )
        raise InputError(msg)


def run_split(options: Options) -> None:
    """Write site folders and show who holds what."""
    from wardround.simulations.cli.summary import print_split
    from wardround.simulations.run_files.folder import new_folder
    from wardround.simulations.sites.preparation import prepare_sites
    from wardround.simulations.sites.split_chart import draw_split

    study = resolve_study(options)
    out = options.out or new_folder_for(study)
    new_folder(out, "choose another --out")
    try:
        prepared = prepare_sites(
            study, out, options.data_root, options.assignment, options.skip_unreadable
        )
        (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
        draw_split(out / "split.html", prepared.table, prepared.notes)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    if options.as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in prepared.table], indent=2) + "\n")
    else:
        print_split(prepared, out)


def run_get(options: Options, as_json: bool = False) -> None:
    """Fetch or find a study's data and say what is there."""
    from wardround.simulations.datasets.catalogue import load_dataset

    study = resolve_study(options)
    simulation = study.simulation
    found = load_dataset(simulation.data, simulation.options, options.data_root, study)
    patients = len({row.patient for row in found.rows})
    if as_json:
        said = {
            "name": simulation.data,
            "title": found.facts.title,
            "examinations": len(found.rows),
            "patients": patients,
            "licence": found.facts.licence,
        }
        sys.stdout.write(json.dumps(said) + "\n")
        return
    sys.stdout.write(
        f"{found.facts.title}: {len(found.rows)} examinations of {patients} patients.\n"
    )
    sys.stdout.write(f"Licence: {found.facts.licence}\n")


def resolve_study(options: Options) -> Study:
    """Return the study with the command line's changes made and checked.

    Raises:
        InputError: The study or a change is refused.
    """
    changes = dict(parse_change(text) for text in options.changes)
    changes = {**privacy_changes(options.privacy), **changes}
    shorthands: dict[str, Any] = {
        "simulation.sites": options.sites,
        "simulation.split": options.split,
        "federation.rounds": options.rounds,
        "federation.seed": options.seed,
        "simulation.seed": options.seed,
        "simulation.compare": None if options.compare else False,
    }
    changes.update({key: value for key, value in shorthands.items() if value is not None})
    study = with_recipe(find_study(options.study), options.study, options.recipe)
    changed = with_changes(study, changes, origin=_typed(options)) if changes else study
    if options.sites is not None and changed.simulation.split == "natural":
        msg = (
            f"--sites {options.sites} draws sites, and this study takes the sites that its "
            "data names: leave --sites out, or add --split iid."
        )
        raise InputError(msg)
    return changed


def _typed(options: Options) -> str:
    """Return what errors call a study that the command line changes: what was typed."""
    words = [] if options.recipe == "default" else [f"--recipe {options.recipe}"]
    words += [f"--set {text}" for text in options.changes]
    words += [f"--privacy {options.privacy}"] if options.privacy is not None else []
    given = {"--sites": options.sites, "--split": options.split}
    given |= {"--rounds": options.rounds, "--seed": options.seed}
    words += [f"{name} {value}" for name, value in given.items() if value is not None]
    return f"{options.study} with {' '.join(words)}" if words else "the study with these changes"


def parse_change(text: str) -> tuple[str, Any]:
    """Return key and value of ``section.key=value``; the value is read as TOML, else as text.

    ``section.key=`` leaves an optional key out.

    Raises:
        InputError: There is no ``=``.
    """
    import tomllib

    key, sign, value = text.partition("=")
    if not sign:
        msg = f"--set {text} has no value: write --set section.key=value."
        raise InputError(msg)
    if not key.strip():
        msg = f"--set {text} has no key: write --set section.key=value."
        raise InputError(msg)
    if not value.strip():
        return key.strip(), None
    try:
        return key.strip(), tomllib.loads(f"x = {value}")["x"]
    except (ValueError, RecursionError):
        return key.strip(), value.strip()


def privacy_changes(text: str | None) -> dict[str, Any]:
    """Return the changes that ``--privacy epsilon=8,delta=1e-5`` asks for: privacy for patients.

    Raises:
        InputError: A part has no ``=``.
    """
    if text is None:
        return {}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if "=" not in part:
            meant = f"epsilon={part}" if _is_number(part) else f"{part}=VALUE"
            msg = f"--privacy {text}: {part!r} says no key: write --privacy {meant}."
            raise InputError(msg)
    return {"privacy.mode": "patient", **dict(parse_change(f"privacy.{part}") for part in parts)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def new_folder_for(study: Study) -> Path:
    """Return a folder for a run of a study, where none was named."""
    from wardround.simulations.run_files.folder import unused_folder

    return unused_folder(study.name)
