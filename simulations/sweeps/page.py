"""One self-contained page from a sweep."""

import shlex
from pathlib import Path

from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.simulations.report.page import fill_page
from wardround.simulations.report.wording import metric_title, number, sentence_title
from wardround.simulations.sweeps.figures import draw_course, draw_slices
from wardround.simulations.sweeps.folder import SweepContents, Trial, print_value
from wardround.simulations.sweeps.search_space import read_aliases


def write_sweep_report(folder: Path, contents: SweepContents) -> Path:
    """Write ``report.html`` into a sweep's folder.

    Raises:
        InputError: The packages that the report needs are not installed.
    """
    text = fill_page(
        "sweep.html.jinja",
        contents=contents,
        facts=contents.facts,
        best=contents.best,
        headline=headline(contents),
        details=explain(contents),
        score_title=sentence_title(contents.facts.metric),
        rows=[(trial, table_row(trial, contents)) for trial in contents.trials],
        charts=[draw_course(contents), *draw_slices(contents)],
        command=shlex.join(contents.facts.command),
        next_command=next_command(folder, contents),
    )
    path = folder / "report.html"
    replace_file(path, text, BY_UMASK, durable=False)
    return path


def headline(contents: SweepContents) -> str:
    """Return the sentence to remember."""
    metric, best = contents.facts.metric, contents.best
    if best is None:
        return "No trial has been trained to its end yet."
    values = ", ".join(f"{key} = {print_value(value)}" for key, value in best.changes.items())
    score = f"{metric_title(metric)} {number(best.value, metric)}"
    return f"Best of {len(contents.trials)} trials: {values} ({score} on validation patients)."


def explain(contents: SweepContents) -> list[str]:
    """Return what a reader must know of these numbers."""
    sentences = [
        "All trials share one seed, one split and the same validation patients, so the best score "
        "is somewhat flattering: differences of the size that another seed makes mean nothing, and "
        "only a run on the test patients, which no trial has seen, says what the values are worth."
    ]
    sentences.extend(read_aliases(contents.facts.parameters))
    done, planned = len(contents.trials), contents.facts.trials
    if done < planned:
        sentences.append(f"The sweep is not finished: {done} of {planned} trials are done.")
    counts = [
        f"{count} {status}"
        for status in ("finished", "stopped early", "failed")
        if (count := sum(trial.status == status for trial in contents.trials))
    ]
    if counts:
        sentences.append(f"Trials: {', '.join(counts)}.")
    for rounds in contents.lengthened.values():
        sentences.append(
            f"best-study.toml has the {rounds} rounds of the study; the trials had "
            f"{contents.study.federation.rounds}."
        )
    if contents.study.privacy.mode != "none":
        sentences.append(
            "This study promises privacy: on hospitals' own patients every trial would spend "
            "privacy of its own. Tune on public data and keep the values fixed."
        )
    return sentences


def next_command(folder: Path, contents: SweepContents) -> str:
    """Return the command that trains the best study and tests it; "" before there is one."""
    if contents.best is None:
        return ""
    words = ["wardround", "simulate", str(folder / "best-study.toml")]
    words += ["--assignment", str(folder / "assignment.csv")]
    if contents.facts.data_root is not None:
        words += ["--data-root", contents.facts.data_root]
    return shlex.join([*words, "--out", str(folder / "best")])


def table_row(trial: Trial, contents: SweepContents) -> list[str]:
    """Return a trial as printed: value, the varied keys, status, rounds, seconds."""
    return [
        number(trial.value, contents.facts.metric),
        *(print_value(trial.changes[parameter.key]) for parameter in contents.parameters),
        trial.status,
        str(trial.rounds),
        f"{trial.seconds:.1f}",
        trial.reason,
    ]
