"""What a private run promised, what each hospital spent on it, and what it cost in accuracy."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardround.client.policy.policy import NO_LIMIT
from wardround.common.errors import WardroundError
from wardround.common.study.explain.distributed_noise import share_words
from wardround.common.study.explain.patient_privacy import (
    evaluation_words,
    limits_words,
    promise_words,
    rounded_up,
)
from wardround.common.study.explain.secure_aggregation import masking_limits
from wardround.common.study.explain.site_privacy import (
    share_promise_words,
    site_limits_words,
    site_promise_words,
)
from wardround.common.study.plans.distributed_noise import plan_shares
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.observers import compare_noise
from wardround.common.study.plans.patient_privacy import evaluation_plans, plan_privacy
from wardround.common.study.plans.site_privacy import plan_site_privacy
from wardround.common.study.study import Study
from wardround.simulations.report.charts.tables import Cell, Table, kept_values
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.wording import number, sentence_title, signed
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED, PrivacyRow


@dataclass(frozen=True, slots=True)
class PrivacyPart:
    """The report's part on privacy.

    Attributes:
        headline: What it cost, in a sentence.
        unit: To whom it is promised.
        promise: What is promised.
        limits: What is not.
        tables: Epsilon spent by hospital; the metric with and without privacy.
    """

    headline: str
    unit: str
    promise: tuple[str, ...]
    limits: tuple[str, ...]
    tables: tuple[Table, ...]


def describe_privacy(contents: RunContents) -> PrivacyPart | None:
    """Return the part on privacy, None for a study that promises none."""
    study = contents.study
    if study is None or study.privacy.mode == "none":
        return None
    of_patients = study.privacy.mode == "patient"
    try:
        promise = tuple(_promise(study))
    except WardroundError as error:  # the accountant is not installed here
        promise = (str(error),)
    tables = (
        _tabulate_observers(study),
        _tabulate_spent(contents.privacy),
        _tabulate_cost(contents),
    )
    return PrivacyPart(
        _cost_sentence(contents),
        "patient" if of_patients else "hospital",
        promise,
        tuple(_limits(study)),
        tuple(table for table in tables if table is not None),
    )


def _limits(study: Study) -> Iterator[str]:
    masks = plan_masking(study)
    if masks is not None:
        yield from masking_limits(masks)
    if study.privacy.mode == "patient":
        yield from limits_words()
    elif masks is None:
        yield from site_limits_words()


def _promise(study: Study) -> Iterator[str]:
    shares = plan_shares(study)
    if study.privacy.mode == "patient":
        yield from _patients_promise(study)
    elif shares is not None:
        yield from share_promise_words(shares)
    else:
        yield from site_promise_words(plan_site_privacy(study))


def _tabulate_observers(study: Study) -> Table | None:
    if study.privacy.mode != "patient" and study.privacy.noise == "local":
        return None
    try:
        compared = compare_noise(study)
    except WardroundError:  # said above
        return None
    rows = tuple(
        (row.name, (Cell(_of(row.local)), Cell(_of(row.distributed)))) for row in compared.observers
    )
    caption = (
        "Epsilon of all rounds against whoever sees what, with each site's own noise (local) and "
        "with the noise of a masked sum (distributed), at the same promise against the server."
    )
    return Table(caption, "against", ("local noise", "distributed noise"), rows)


def _of(epsilon: float | None) -> str:
    return "–" if epsilon is None else rounded_up(epsilon)


def _patients_promise(study: Study) -> Iterator[str]:
    yield from promise_words(plan_privacy(study))
    shares = plan_shares(study)
    if shares is not None:
        yield from share_words(shares)
    if study.federation.secure_aggregation:
        yield (
            "nothing is measured on validation and test patients outside this simulation, whose "
            "test results have no noise."
        )
        return
    yield "to each validation and test patient:"
    yield from evaluation_words(evaluation_plans(study))
    yield (
        "in this simulation the test results have no noise, which a hospital's would have; the "
        "validation results have it, and the model was chosen by them."
    )


def _tabulate_spent(rows: Sequence[PrivacyRow]) -> Table | None:
    if not rows:
        return None
    columns = (
        "patients",
        "epsilon spent",
        "delta",
        "lifetime cap",
        "answers charged",
        "answers left",
        "steps",
    )
    cells = (
        (
            row.site,
            (
                Cell(row.part),
                Cell(_epsilon(row.epsilon)),
                Cell(f"{row.delta:g}"),
                Cell("none" if row.cap >= NO_LIMIT else _epsilon(row.cap)),
                Cell(str(row.charged)),
                Cell(str(row.released)),
                Cell(str(row.steps)),
            ),
        )
        for row in rows
    )
    caption = (
        "What each hospital's ledger holds: every answer is charged before it is computed, "
        "whether or not it left, to the patients whom it is about. No patient is in two parts."
    )
    return Table(caption, "hospital", columns, tuple(cells))


def _tabulate_cost(contents: RunContents) -> Table | None:
    costs = _costs(contents)
    if not costs:
        return None
    metric = contents.metric
    rows = tuple(
        (
            site,
            (
                Cell(number(without, metric)),
                Cell(number(private, metric)),
                Cell(signed(private - without, metric)),
            ),
        )
        for site, (without, private) in costs.items()
    )
    columns = ("without privacy", "with privacy", "difference")
    caption = (
        f"{sentence_title(metric)} of the federated model on each hospital's test patients, "
        "compared with the same federation without privacy."
    )
    return Table(caption, "hospital", columns, rows)


def _cost_sentence(contents: RunContents) -> str:
    costs, metric = _costs(contents), contents.metric
    parts = []
    if contents.privacy:
        spent = max(row.epsilon for row in contents.privacy)
        parts.append(f"No hospital spent more than epsilon {_epsilon(spent)} on its patients.")
    if costs:
        without, private = (sum(pair) / len(costs) for pair in zip(*costs.values(), strict=True))
        parts.append(
            f"{sentence_title(metric)} on test patients is {number(private, metric)} with privacy "
            f"and {number(without, metric)} without it, a difference of "
            f"{signed(private - without, metric)} (mean over {len(costs)} hospitals). The models "
            "trained alone and on pooled data have no privacy either."
        )
    return " ".join(parts) or "This run has not come far enough to say what privacy cost."


def _costs(contents: RunContents) -> dict[str, tuple[float, float]]:
    """Return each hospital's metric without and with privacy, where both are known."""
    kept, metric = kept_values(contents), contents.metric
    found = {}
    for site in contents.sites:
        pair = [kept.get((model, site, metric, "")) for model in (UNPROTECTED, FEDERATED)]
        values = tuple(math.nan if row is None else row.value for row in pair)
        if not any(math.isnan(value) for value in values):
            found[site] = (values[0], values[1])
    return found


def _epsilon(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}"
