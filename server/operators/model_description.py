"""What the server knows of a run's model: its contract, what was measured, its card."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import wardround
from wardround.common.errors import WardroundError
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, Measured, study_content
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.security.lineage_verification import lineage_words, verify_lineage
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.server.checkpoints.lost_sites import lost_words
from wardround.server.operators.messages import RunRecord
from wardround.server.operators.report.privacy import privacy_words

_UNSEEN = (
    "nothing about the values of the hospitals' images has left them, so their range is not known"
)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What becomes a model folder.

    Attributes:
        texts: The card and the licence.
    """

    weights: Parameters
    contract: Contract
    measured: tuple[Measured, ...]
    texts: tuple[str, str]


def describe_model(
    shared: Parameters, record: RunRecord, kept_round: int, lineage: str = ""
) -> ModelDescription:
    """Return what the operator's machine knows of a run's model.

    Args:
        shared: What all sites share of it.
        record: Of the run.
        kept_round: After which round it was made.
        lineage: The signed record of its rounds, "" where there is none.

    Raises:
        ModelError: The record is not this model's, or was changed.
    """
    run, study = record.details.summary, parse_study(tomllib.loads(record.study), planned=False)
    weights, complete = _whole(shared, study)
    contract = Contract(
        wardround=wardround.__version__,
        name=run.run,
        run=run.run,
        round=kept_round,
        study=study_content(study),
        study_digest=study.digest,
        parameters=digest(weights),
        complete=complete,
        seen_note=_UNSEEN,
    )
    measured = tuple(
        Measured(
            of="the sites' validation patients, as they let it out", metric=run.metric, value=value
        )
        for value in _values(record, kept_round)
    )
    licence = "The data are the hospitals'; none of their licences is known here."
    signed = (
        verify_lineage(lineage.encode(), study.digest, digest(shared), kept_round)
        if lineage
        else None
    )
    origin = Origin(
        _trained_on(record),
        _privacy(record),
        licence,
        sites=tuple(_sites(record)),
        source=("the hospitals' own data, which have not left them",),
        environment=("the machines of the hospitals and of the server: their operators know them",),
        code=() if signed is None else signed.code,
        verdict=("each hospital's own model is at the hospital: it was not compared here",),
        lineage=lineage_words(signed),
    )
    card = model_card(contract, study, origin, measured)
    return ModelDescription(weights, contract, measured, (card, licence_text(licence, study)))


def _whole(shared: Parameters, study: Study) -> tuple[Parameters, bool]:
    """Return the network's numbers as far as they are known here, and whether they are all."""
    network = build_network(study, study.federation.seed)
    layout = layout_of(network, plan_of(study))
    if not layout.frozen:
        return shared, not layout.personal
    try:
        load_pretrained(network, study)
    except WardroundError:  # the weights beneath lie with the sites
        return shared, False
    return {**layout.frozen_part(read_parameters(network)), **shared}, not layout.personal


def _sites(record: RunRecord) -> Iterator[str]:
    for site, count in sorted(_counted(record).items()):
        yield f"{site}: its updates are in {count} rounds; how many patients stays there"


def _values(record: RunRecord, kept_round: int) -> list[float]:
    found = [one.value for one in record.details.history if one.measured_round == kept_round]
    return [value for value in found if value is not None][:1]


def _counted(record: RunRecord) -> dict[str, int]:
    counted: dict[str, int] = {}
    for one in record.parts:
        counted[one.site] = counted.get(one.site, 0) + 1
    return counted


def _trained_on(record: RunRecord) -> tuple[str, ...]:
    run = record.details.summary
    took = ", ".join(f"{site} ({n} rounds)" for site, n in sorted(_counted(record).items()))
    ended = datetime.fromtimestamp(run.ended or 0.0, UTC)
    lost = lost_words(run.without, run.missed, run.round)
    absent = f"; {lost}" if lost else ""
    return (f"trained at: {took}{absent}", f"run {run.run} ended on {ended:%Y-%m-%d}")


def _privacy(record: RunRecord) -> tuple[str, ...]:
    try:
        return tuple(privacy_words(record.study, _counted(record)))
    except WardroundError as error:  # the accountant is not installed here
        return (str(error),)
