"""What leaves a site: its schema, its encoding, its checks."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import arrays_of, configs_of, metrics_of
from wardround.common.messages.instructions import NO_LEDGER
from wardround.common.messages.refusals import REFUSAL_WORDS
from wardround.common.metrics.noised.encoding import NoisedSums
from wardround.common.metrics.records import (
    noised_from_record,
    noised_to_record,
    sums_from_record,
    sums_to_record,
    values_from_record,
    values_to_record,
)
from wardround.common.metrics.sums import MetricSums, SiteValues
from wardround.common.parameters.array_records import take_array_record, to_array_record
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.fields import (
    LARGEST_SECONDS,
    LONGEST_TEXT,
    FieldError,
    Fields,
    plain,
)
from wardround.common.study.study import Study

_RELEASE = re.compile(r"(?P<series>[0-9]+\.[0-9]+)\.[0-9]+")

# Why a site refuses, in a word; nothing else of the reason leaves a hospital.
REFUSAL_CODES = tuple(REFUSAL_WORDS)


MONITORING_WORDS = ("quiet", "alarm", "noised quiet", "noised alarm")


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """What a site says of itself before the first round.

    Attributes:
        base: Fingerprint of the numbers beneath adapters; 0 where there are none.
        monitoring: Whether the site's monitoring raised an alarm in its last period, one of
            MONITORING_WORDS; "" where it does not say.
    """

    site: str
    wardround: str
    digest: str
    examinations: int
    notes: tuple[str, ...] = ()
    base: float = 0.0
    monitoring: str = ""


@dataclass(frozen=True, slots=True)
class SiteUpdate:
    """A site's reply to one round.

    Attributes:
        examinations: Training examinations: the weight of the update.
        updates: Optimiser steps made.
        seconds: 0 where the site does not say.
        training_loss: NaN where the site does not say, or where it is not finite.
        metrics: How the model that was *received* did on the site's validation patients: tables,
            or numbers where the site's policy lets no tables out.
        bytes_up: Size of the arrays as they travelled.
        auxiliary: What the strategy asks for beside the model, e.g. the change of a control
            variate.
        run: The run of the instruction that this answers.
        ledger: The last entry of the site's privacy ledger, where it keeps one.
        sites: How many sites' updates it is the mean of; a site's own is of one.
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
    sites: int = 1


@dataclass(frozen=True, slots=True)
class SiteEvaluation:
    """A site's reply to an evaluation.

    Attributes:
        run: The run of the instruction that this answers.
    """

    site: str
    digest: str
    round: int
    metrics: MetricSums | SiteValues | NoisedSums | None
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


def understand_each_other(ours: str, theirs: str) -> bool:
    """Return whether two releases read each other's messages: those that differ in a patch do.

    Args:
        ours: A version such as 0.3.1; of one that is no release, e.g. 0.4.0.dev2, only the same
            understands it.
        theirs: Of the other side.
    """
    releases = _RELEASE.fullmatch(ours), _RELEASE.fullmatch(theirs)
    if releases[0] is None or releases[1] is None:
        return ours == theirs
    return releases[0].group("series") == releases[1].group("series")


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
    if site_info.monitoring:
        header["monitoring"] = site_info.monitoring
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
    if math.isfinite(update.training_loss):
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
    """Return the refusal in a message, None if it is a reply.

    A message that holds a refusal is one, whatever else is wrong with it: its words are cut, and
    a code that is none of REFUSAL_CODES is taken for "internal".
    """
    record = configs_of(content).get("refusal")
    if record is None:
        return None
    code = record.get("code")
    return Refusal(
        plain(record.get("site", ""), LONGEST_TEXT),
        code if isinstance(code, str) and code in REFUSAL_CODES else "internal",
        plain(record.get("reason", "")),
    )


def unpack_site_info(content: RecordDict) -> SiteInfo:
    """Return the site info in a message.

    Raises:
        RunError: The message is not one, or holds what cannot be true.
    """
    with _reading("site-info"):
        header = Fields(configs_of(content).get("header"), "header")
        return SiteInfo(
            site=header.text("site", least=1),
            wardround=header.text("wardround", least=1),
            digest=header.text("digest"),
            examinations=header.whole("examinations"),
            notes=header.texts("notes"),
            base=header.number("base", default=0.0),
            monitoring=_monitoring(header),
        )


def _monitoring(header: Fields) -> str:
    word = header.text("monitoring", default="")
    if word and word not in MONITORING_WORDS:
        msg = "monitoring is none of the words that it may be"
        raise FieldError(msg)
    return word


def unpack_update(content: RecordDict, study: Study) -> SiteUpdate:
    """Return the update in a message, whose arrays are taken out of it.

    Raises:
        RunError: The message is not one, or holds what cannot be true.
        WardroundError: An array cannot be read, or the metrics are not those of the study.
    """
    with _reading("update"):
        header = Fields(configs_of(content).get("header"), "header")
        facts = Fields(metrics_of(content).get("facts"), "facts")
        model = arrays_of(content).get("model")
        if model is None:
            msg = "model is missing"
            raise FieldError(msg)
        auxiliary = arrays_of(content).get("auxiliary")
        size = model.count_bytes() + (0 if auxiliary is None else auxiliary.count_bytes())
        return SiteUpdate(
            site=header.text("site", least=1),
            digest=header.text("digest"),
            round=header.whole("round"),
            attempt=header.whole("attempt"),
            parameters=take_array_record(model),
            examinations=facts.whole("examinations"),
            updates=facts.whole("updates"),
            seconds=facts.number("seconds", default=0.0, least=0.0, most=LARGEST_SECONDS),
            training_loss=facts.number("training-loss", default=math.nan),
            metrics=_metrics(content, study),
            bytes_up=size,
            auxiliary={} if auxiliary is None else take_array_record(auxiliary),
            run=header.text("run", longest=32),
            ledger=ChainHead(
                header.whole("ledger", default=0), header.text("ledger-head", default="")
            ),
        )


def unpack_evaluation(content: RecordDict, study: Study) -> SiteEvaluation:
    """Return the evaluation in a message.

    Raises:
        RunError: The message is not one, or holds what cannot be true.
        WardroundError: The metrics are not those of the study.
    """
    with _reading("evaluation"):
        header = Fields(configs_of(content).get("header"), "header")
        facts = Fields(metrics_of(content).get("facts"), "facts")
        return SiteEvaluation(
            site=header.text("site", least=1),
            digest=header.text("digest"),
            round=header.whole("round"),
            metrics=_noised(content, study) or _metrics(content, study),
            seconds=facts.number("seconds", default=0.0, least=0.0, most=LARGEST_SECONDS),
            run=header.text("run", longest=32),
        )


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
    elif isinstance(reply.metrics, NoisedSums):
        content["noised"] = noised_to_record(reply.metrics)
    elif reply.metrics is not None:
        content["values"] = values_to_record(reply.metrics)
    return content


def _metrics(content: RecordDict, study: Study) -> MetricSums | SiteValues | None:
    values = metrics_of(content).get("values")
    if values is not None:
        return values_from_record(values, study)
    record = arrays_of(content).get("metrics")
    return None if record is None else sums_from_record(record, study)


def _noised(content: RecordDict, study: Study) -> NoisedSums | None:
    record = arrays_of(content).get("noised")
    return None if record is None else noised_from_record(record, study)


@contextmanager
def _reading(kind: str) -> Iterator[None]:
    try:
        yield
    except FieldError as error:
        msg = (
            f"the {kind} cannot be read ({error}): "
            "server and site must run the same version of wardround."
        )
        raise RunError(msg) from None
