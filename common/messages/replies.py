"""What leaves a site: its schema, its encoding, its checks."""

import math
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import arrays_of, configs_of, metrics_of
from wardround.common.messages.instructions import NO_LEDGER
from wardround.common.messages.refusals import REFUSAL_WORDS
from wardround.common.metrics.records import (
    sums_from_record,
    sums_to_record,
    values_from_record,
    values_to_record,
)
from wardround.common.metrics.sums import MetricSums, SiteValues
from wardround.common.parameters.array_records import take_array_record, to_array_record
from wardround.common.parameters.schema import Parameters
from wardround.common.study.study import Study

# Why a site refuses, in a word; nothing else of the reason leaves a hospital.
REFUSAL_CODES = tuple(REFUSAL_WORDS)


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """What a site says of itself before the first round.

    Attributes:
        base: Fingerprint of the numbers beneath adapters; 0 where there are none.
    """

    site: str
    wardround: str
    digest: str
    examinations: int
    notes: tuple[str, ...] = ()
    base: float = 0.0


@dataclass(frozen=True, slots=True)
class SiteUpdate:
    """A site's reply to one round.

    Attributes:
        examinations: Training examinations: the weight of the update.
        updates: Optimiser steps made.
        seconds: 0 where the site does not say.
        training_loss: NaN where the site does not say.
        metrics: How the model that was *received* did on the site's validation patients: tables,
            or numbers where the site's policy lets no tables out.
        bytes_up: Size of the arrays as they travelled.
        auxiliary: What the strategy asks for beside the model, e.g. the change of a control
            variate.
        run: The run of the instruction that this answers.
        ledger: The last entry of the site's privacy ledger, where it keeps one.
    """

    site: str
    digest: str
    round: int
    attempt: int
    parameters: Parameters
    examinations: int
    updates: int
    seconds: float
    training_loss: float
    metrics: MetricSums | SiteValues | None = None
    bytes_up: int = 0
    auxiliary: Parameters = field(default_factory=dict)
    run: str = ""
    ledger: ChainHead = NO_LEDGER


@dataclass(frozen=True, slots=True)
class SiteEvaluation:
    """A site's reply to an evaluation.

    Attributes:
        run: The run of the instruction that this answers.
    """

    site: str
    digest: str
    round: int
    metrics: MetricSums | SiteValues | None
    seconds: float
    run: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site's word that it will not, or cannot, answer.

    Attributes:
        code: One of REFUSAL_CODES.
        reason: A sentence, in a simulation only; a hospital's stays in the hospital.
    """

    site: str
    code: str
    reason: str = ""


def pack_site_info(site_info: SiteInfo) -> RecordDict:
    """Return the content of the message that carries a site info."""
    header = ConfigRecord(
        {
            "site": site_info.site,
            "wardround": site_info.wardround,
            "digest": site_info.digest,
            "examinations": site_info.examinations,
            "notes": list(site_info.notes),
        }
    )
    if site_info.base:
        header["base"] = site_info.base
    return RecordDict({"header": header})


def pack_update(update: SiteUpdate) -> RecordDict:
    """Return the content of the message that carries an update."""
    content = _reply(update, update.attempt)
    if update.ledger.entries:
        header = configs_of(content)["header"]
        header["ledger"], header["ledger-head"] = update.ledger.entries, update.ledger.hash
    content["model"] = to_array_record(update.parameters)
    facts = MetricRecord({"examinations": update.examinations, "updates": update.updates})
    if update.seconds:
        facts["seconds"] = update.seconds
    if not math.isnan(update.training_loss):
        facts["training-loss"] = update.training_loss
    content["facts"] = facts
    if update.auxiliary:
        content["auxiliary"] = to_array_record(update.auxiliary)
    return content


def pack_evaluation(evaluation: SiteEvaluation) -> RecordDict:
    """Return the content of the message that carries an evaluation."""
    content = _reply(evaluation, 0)
    content["facts"] = MetricRecord({"seconds": evaluation.seconds} if evaluation.seconds else {})
    return content


def pack_refusal(refusal: Refusal) -> RecordDict:
    """Return the content of the message that carries a refusal."""
    return RecordDict(
        {
            "refusal": ConfigRecord(
                {"site": refusal.site, "code": refusal.code, "reason": refusal.reason}
            )
        }
    )


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """Return the refusal in a message, None if it is a reply."""
    record = configs_of(content).get("refusal")
    if record is None:
        return None
    return Refusal(str(record["site"]), str(record["code"]), str(record["reason"]))


def unpack_site_info(content: RecordDict) -> SiteInfo:
    """Return the site info in a message.

    Raises:
        RunError: The message is not one.
    """
    try:
        header = configs_of(content)["header"]
        notes = header["notes"]
        return SiteInfo(
            site=str(header["site"]),
            wardround=str(header["wardround"]),
            digest=str(header["digest"]),
            examinations=int(header["examinations"]),  # type: ignore[arg-type] # caught below
            notes=tuple(str(note) for note in notes) if isinstance(notes, list) else (),
            base=float(header.get("base", 0.0)),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(_unreadable("site-info", error)) from None


def unpack_update(content: RecordDict, study: Study) -> SiteUpdate:
    """Return the update in a message, whose arrays are taken out of it.

    Raises:
        RunError: The message is not one.
    """
    try:
        header, facts = configs_of(content)["header"], metrics_of(content)["facts"]
        model = arrays_of(content)["model"]
        auxiliary = arrays_of(content).get("auxiliary")
        size = model.count_bytes() + (0 if auxiliary is None else auxiliary.count_bytes())
        return SiteUpdate(
            site=str(header["site"]),
            digest=str(header["digest"]),
            round=int(header["round"]),  # type: ignore[arg-type] # a bad value is caught below
            attempt=int(header["attempt"]),  # type: ignore[arg-type]
            parameters=take_array_record(model),
            examinations=int(facts["examinations"]),  # type: ignore[arg-type]
            updates=int(facts["updates"]),  # type: ignore[arg-type]
            seconds=float(facts.get("seconds", 0.0)),  # type: ignore[arg-type]
            training_loss=float(facts.get("training-loss", math.nan)),  # type: ignore[arg-type]
            metrics=_metrics(content, study),
            bytes_up=size,
            auxiliary={} if auxiliary is None else take_array_record(auxiliary),
            run=str(header["run"]),
            ledger=ChainHead(
                int(header.get("ledger", 0)),  # type: ignore[arg-type]
                str(header.get("ledger-head", "")),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(_unreadable("update", error)) from None


def unpack_evaluation(content: RecordDict, study: Study) -> SiteEvaluation:
    """Return the evaluation in a message.

    Raises:
        RunError: The message is not one.
    """
    try:
        header, facts = configs_of(content)["header"], metrics_of(content)["facts"]
        return SiteEvaluation(
            site=str(header["site"]),
            digest=str(header["digest"]),
            round=int(header["round"]),  # type: ignore[arg-type] # a bad value is caught below
            metrics=_metrics(content, study),
            seconds=float(facts.get("seconds", 0.0)),  # type: ignore[arg-type]
            run=str(header["run"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(_unreadable("evaluation", error)) from None


def _reply(reply: SiteUpdate | SiteEvaluation, attempt: int) -> RecordDict:
    header = ConfigRecord(
        {
            "site": reply.site,
            "digest": reply.digest,
            "run": reply.run,
            "round": reply.round,
            "attempt": attempt,
        }
    )
    content = RecordDict({"header": header})
    if isinstance(reply.metrics, MetricSums):
        content["metrics"] = sums_to_record(reply.metrics)
    elif reply.metrics is not None:
        content["values"] = values_to_record(reply.metrics)
    return content


def _metrics(content: RecordDict, study: Study) -> MetricSums | SiteValues | None:
    values = metrics_of(content).get("values")
    if values is not None:
        return values_from_record(values, study)
    record = arrays_of(content).get("metrics")
    return None if record is None else sums_from_record(record, study)


def _unreadable(kind: str, error: Exception) -> str:
    return (
        f"the {kind} cannot be read ({type(error).__name__}): "
        "server and site must run the same version of wardround."
    )
