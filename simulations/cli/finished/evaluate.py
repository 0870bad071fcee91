"""What ``wardround evaluate`` does once its words are read."""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from wardround.common.errors import InputError


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The words of the command line.

    Attributes:
        run: A run folder, or a model folder.
        site: A site folder, or a manifest.
        subgroups: As typed, e.g. "sex,age".
        out: None for a new folder below runs/.
    """

    run: Path
    site: Path
    model: str
    split: str
    subgroups: str | None
    device: str
    out: Path | None
    as_json: bool


def run_evaluation(options: EvaluateOptions) -> None:
    """Evaluate, and print what was measured."""
    from wardround.simulations.experiment.external.evaluate import EvaluationRequest, evaluate_at
    from wardround.simulations.run_files.folder import unused_folder

    for path, what in ((options.run, "run"), (options.site, "site")):
        if not path.exists():
            msg = f"there is no {path}: give the folder of a {what}."
            raise InputError(msg)
    made = options.out is None
    out = options.out or unused_folder("evaluation")
    named = options.subgroups
    groups = None if named is None else tuple(word.strip() for word in named.split(",") if word)
    try:
        evaluate_at(
            EvaluationRequest(
                run=options.run,
                place=options.site,
                out=out,
                model=options.model,
                split=options.split,
                subgroups=groups,
                device=options.device,
                command=("wardround", *sys.argv[1:]),
            )
        )
    finally:
        if made and not any(out.iterdir()):
            out.rmdir()  # what was refused leaves no folder
    if options.as_json:
        sys.stdout.write(json.dumps(_as_json(out), indent=2) + "\n")
    else:
        _print(out)


def _print(out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from wardround.simulations.report.pages.evaluation_page import (
        evaluation_contents,
        headline,
        title_of,
    )
    from wardround.simulations.report.sections.subgroups import subgroups_section
    from wardround.simulations.report.wording import number

    facts, contents = evaluation_contents(out)
    console = Console()
    if contents.study is not None:
        console.print(headline(facts, contents.study), markup=False, style="bold")
    table = Table("measure", "here", "95 % interval", "in the run")
    for one in facts.metrics:
        low, high = number(one.low, one.metric), number(one.high, one.metric)
        interval = "" if math.isnan(one.low) else f"{low} to {high}"
        before = number(one.in_the_run, one.metric)
        table.add_row(title_of(one.metric), number(one.value, one.metric), interval, before)
    console.print(table)
    if section := subgroups_section(contents):
        for sentence in section.answer:
            console.print(sentence, markup=False)
        for part in section.tables:
            drawn = Table(part.corner, *part.columns)
            for heading, cells in part.rows:
                drawn.add_row(heading, *(cell.text for cell in cells))
            console.print(drawn)
    for note in facts.notes:
        console.print(note, markup=False)
    console.print(f"Report: {out / 'report.html'}", markup=False)


def _as_json(out: Path) -> dict[str, object]:
    from wardround.simulations.report.pages.evaluation_page import evaluation_contents, headline
    from wardround.simulations.report.sections.subgroups import findings

    facts, contents = evaluation_contents(out)
    groups = [asdict(one) for one in findings(contents)]
    content = {
        "evaluation": str(out),
        "report": str(out / "report.html"),
        "verdict": headline(facts, contents.study) if contents.study else "",
        **{k: v for k, v in asdict(facts).items() if k != "command"},
        "subgroups": groups,
    }
    finite = _finite(content)
    return finite if isinstance(finite, dict) else {}


def _finite(content: object) -> object:
    """Return the content with null for what is not a number, as JSON has no NaN."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
