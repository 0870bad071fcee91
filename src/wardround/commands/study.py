"""``wardround study``: make, check and explain a study file."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.common.runtime.printable import word

if TYPE_CHECKING:
    from wardround.common.study.study import Study

study_app = typer.Typer(
    help="Make, check and explain a study file.", no_args_is_help=True, suggest_commands=False
)
StudyFile = Annotated[
    Path,
    typer.Argument(help="A study file (TOML), or the name of a built-in one.", show_default=False),
]


@study_app.command()
def new(
    path: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    task: Annotated[
        str,
        typer.Option(
            help="classification, detection, segmentation, regression, survival or pretraining."
        ),
    ] = "classification",
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Promise each patient privacy, as a site's first policy requires."
        ),
    ] = False,
) -> None:
    """Write a study file to start from.

    Example: wardround study new study.toml --task segmentation --private
    """
    from wardround.common.errors import InputError, known_names
    from wardround.common.study.template import TEMPLATE_TASKS, study_template

    if task not in TEMPLATE_TASKS:
        raise InputError(known_names("task", task, TEMPLATE_TASKS))
    if path.exists():
        msg = f"{path} exists already: choose another name."
        raise InputError(msg)
    try:
        path.write_text(study_template(task, private), encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}. Choose another place."
        raise InputError(msg) from None
    sys.stdout.write(f"Wrote {path}. Edit it, then: wardround study check {word(path)}\n")


@study_app.command()
def check(
    context: typer.Context,
    path: StudyFile,
    as_json: AsJson = False,
) -> None:
    """Check a study file and print its digest, which is what a hospital approves.

    It also says what the policy that a site starts with would not allow.

    Example: wardround study check study.toml
    """
    from wardround.common.study.loading import require_simulation
    from wardround.common.study.lock import package_notes
    from wardround.common.study.template import refused_at_first
    from wardround.common.study.typed import read_study

    study = read_study(context, path)
    if "simulation" in study.model_fields_set:
        require_simulation(study, str(path))
    notes = (*refused_at_first(study), *package_notes(study), *_start_notes(study))
    _require_network(study)
    if as_json:
        said = {"name": study.name, "digest": study.digest, "notes": notes}
        sys.stdout.write(json.dumps(said) + "\n")
        return
    sys.stdout.write(f"{study.name} is a valid study.\ndigest {study.digest}\n")
    for note in notes:
        sys.stdout.write(f"Note: {note}\n")


@study_app.command()
def lock(
    path: Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)],
    others: Annotated[
        list[str] | None,
        typer.Option("--with", help="A package that those of the study need; may be repeated."),
    ] = None,
) -> None:
    """Write the hashes of the packages that a study names into it, as they are installed here.

    The digest changes with each byte of a package, so each hospital approves the study anew.

    Example: wardround study lock study.toml
    """
    from wardround.common.errors import InputError
    from wardround.common.files.atomic import BY_UMASK, replace_file
    from wardround.common.study.lock import locked

    text = _text_of(path)
    new, study = locked(text, str(path), others or ())
    try:
        if new != text:
            replace_file(path, new, BY_UMASK)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}. Choose another place."
        raise InputError(msg) from None
    lines = "".join(f"{package} {found}\n" for package, found in study.packages.items())
    sys.stdout.write(f"{lines or 'The study names no package.'}".rstrip() + "\n")
    sys.stdout.write(f"digest {study.digest}\n")


def _require_network(study: "Study") -> None:
    """Check by building it what does not follow from the study alone, if its packages are here.

    Raises:
        StudyError: The network does not take what the study says, or what is frozen of it leaves
            nothing to train, to share or to keep.
    """
    from wardround.common.files.packages.references import MONAI
    from wardround.common.files.packages.snapshot import is_installed

    name = study.model.network
    is_here = all(map(is_installed, study.packages))
    if name.startswith(MONAI) or (is_here and (":" in name or study.model.frozen)):
        from wardround.common.models.networks.registry import require_network

        require_network(study)


def _start_notes(study: "Study") -> Iterator[str]:
    """Yield what the network takes of the weights that the study starts from.

    Raises:
        ModelError: They do not fit it.
    """
    model = study.model
    if model.weights_sha256 is None and not model.frozen and model.adapter_rank is None:
        return
    from wardround.common.models.pretrained import frozen_as_drawn, lacks_weights, start_of

    if random := frozen_as_drawn(study):
        yield f"{random}."
    elif lacks_weights(study):
        yield (
            "the weights of model.weights_sha256 are not on this machine, so it cannot be told "
            "what the network takes of them: run 'wardround model pretrain' with the model folder."
        )
    elif (start := start_of(study)) is not None:
        yield f"{start.words()}."


@study_app.command()
def explain(
    context: typer.Context,
    path: StudyFile,
    as_json: AsJson = False,
) -> None:
    """Say in plain language what a hospital would be agreeing to.

    Example: wardround study explain study.toml
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.common.study.explain.study import explain_study
    from wardround.common.study.typed import read_study

    study = read_study(context, path)
    text = explain_study(study)
    if as_json:
        said = {"name": study.name, "digest": study.digest, "text": text}
        sys.stdout.write(json.dumps(said) + "\n")
        return
    write_lines(text)


@study_app.command()
def privacy(
    context: typer.Context,
    path: StudyFile,
    patients: Annotated[
        str, typer.Option("--patients", help="Sizes of a site to show, e.g. 200,500,2000.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Say what is promised to each patient, and what other budgets would cost.

    Example: wardround study privacy study.toml --patients 200,500
    """
    from wardround.common.models.networks.registry import build_network
    from wardround.common.study.explain.distributed_noise import comparison_words, share_words
    from wardround.common.study.explain.patient_privacy import (
        evaluation_words,
        promise_words,
        table_words,
    )
    from wardround.common.study.plans.distributed_noise import plan_shares
    from wardround.common.study.plans.observers import compare_noise
    from wardround.common.study.plans.patient_privacy import (
        USUAL_PATIENTS,
        evaluation_plans,
        plan_privacy,
        trade_offs,
    )
    from wardround.common.study.typed import read_study

    study = read_study(context, path)
    if study.privacy.mode == "site" and study.privacy.noise == "distributed":
        sys.stdout.write(_shares_of_sites(study, as_json))
        return
    if study.privacy.mode == "site":
        sys.stdout.write(_promise_to_sites(study, as_json))
        return
    if study.statistics.ask:
        sys.stdout.write(_about_statistics(study))
        return
    plan, sizes = plan_privacy(study), _sizes(patients) or USUAL_PATIENTS
    network = build_network(study, study.federation.seed)
    trainable = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    rows, evaluations = trade_offs(plan, trainable, sizes), evaluation_plans(study)
    if as_json:
        said = {**asdict(plan), "epsilon": plan.epsilon, "parameters": trainable, "patients": sizes}
        said["evaluations"] = [{**asdict(one), "epsilon": one.epsilon} for one in evaluations]
        said["trade_offs"] = [asdict(row) for row in rows]
        said["observers"] = asdict(compare_noise(study))
        sys.stdout.write(json.dumps(said) + "\n")
        return
    shares = plan_shares(study)
    words = [*promise_words(plan), *(() if shares is None else share_words(shares))]
    promise = "".join(f"  - {sentence}\n" for sentence in words)
    sys.stdout.write(f"{study.name}: what is promised to each training patient\n{promise}\n")
    measured = "".join(f"  - {sentence}\n" for sentence in evaluation_words(evaluations))
    sys.stdout.write(f"What is promised to each validation and test patient\n{measured}\n")
    sys.stdout.write(comparison_words(compare_noise(study)) + "\n\n")
    sys.stdout.write(table_words(rows, sizes, plan, trainable) + "\n")


def _about_statistics(study: "Study") -> str:
    from wardround.common.study.explain.statistics import bound_words

    bounds = "".join(f"  - {sentence}\n" for sentence in bound_words(study))
    return f"{study.name}: how much of a training patient is in its statistics\n{bounds}"


def _shares_of_sites(study: "Study", as_json: bool) -> str:
    from wardround.common.study.explain.distributed_noise import comparison_words
    from wardround.common.study.explain.site_privacy import share_promise_words
    from wardround.common.study.plans.distributed_noise import plan_shares
    from wardround.common.study.plans.observers import compare_noise

    shares, compared = plan_shares(study), compare_noise(study)
    if shares is None:
        return ""
    if as_json:
        return json.dumps({**asdict(shares), "observers": asdict(compared)}) + "\n"
    promise = "".join(f"  - {sentence}\n" for sentence in share_promise_words(shares))
    return (
        f"{study.name}: what is promised to each hospital\n{promise}\n"
        f"{comparison_words(compared)}\n"
    )


def _promise_to_sites(study: "Study", as_json: bool) -> str:
    from wardround.common.study.explain.site_privacy import site_limits_words, site_promise_words
    from wardround.common.study.plans.site_privacy import plan_site_privacy

    plan = plan_site_privacy(study)
    if as_json:
        return json.dumps({**asdict(plan), "sum_noise": plan.sum_noise, "epsilon": plan.epsilon})
    promise = "".join(f"  - {sentence}\n" for sentence in site_promise_words(plan))
    limits = "".join(f"  - {sentence}\n" for sentence in site_limits_words())
    return (
        f"{study.name}: what is promised to each hospital\n{promise}\n"
        f"What is not promised\n{limits}"
    )


def _sizes(text: str) -> tuple[int, ...]:
    from wardround.common.errors import InputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        msg = f"--patients {text!r} is no list of numbers: write e.g. 200,500,2000."
        raise InputError(msg)
    return tuple(int(part) for part in parts)


@study_app.command()
def upgrade(
    path: Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write it; without this in its place, beside a copy of the old."
        ),
    ] = None,
) -> None:
    """Rewrite a study file of an older Wardround for this one, and show what changes.

    Comments and order stay. The digest changes, so each hospital approves the study anew.

    Example: wardround study upgrade study.toml --out study-2.toml
    """
    from difflib import unified_diff

    from wardround.common.errors import InputError
    from wardround.common.runtime.printable import write_lines
    from wardround.common.study.upgrade import upgrade as upgraded
    from wardround.common.study.versions import newest

    text = _text_of(path)
    made = upgraded(text, str(path))
    if made is None:
        sys.stdout.write(f"{path} is of version {newest()}, the newest: there is nothing to do.\n")
        return
    target = path if out is None else out
    kept = path.with_name(f"{path.name}.schema-{made.before}")
    if (new := kept if out is None else out).exists():
        msg = f"{new} exists already: move it away, or choose another name with --out."
        raise InputError(msg)
    try:
        if out is None:
            kept.write_text(text, encoding="utf-8")
        target.write_text(made.text, encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {error.filename}: {error.strerror}. Choose another place with --out."
        raise InputError(msg) from None
    lines = (text.splitlines(), made.text.splitlines())
    told = [*unified_diff(*lines, str(path), str(target), lineterm=""), "", *made.says]
    write_lines("".join(f"{line}\n" for line in told))
    sys.stdout.write(
        f"Wrote {target}, of version {newest()} instead of {made.before}"
        f"{f'; the old file is {kept}' if out is None else ''}.\ndigest {made.digest}\n"
        "This digest is another one: each hospital approves the study anew.\n"
    )


def _text_of(path: Path) -> str:
    from wardround.common.errors import InputError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}. Give the name of a study file."
    except UnicodeDecodeError:
        msg = f"{path} is not UTF-8: save it as UTF-8 in an editor."
    raise InputError(msg)


@study_app.command()
def schema() -> None:
    """Print the JSON Schema of a study file: every key, its type, its limits and its meaning.

    Example: wardround study schema > study.schema.json
    """
    from wardround.common.study.explain.schema import study_schema

    sys.stdout.write(json.dumps(study_schema(), indent=2) + "\n")
