"""A canary round: what a site is asked, the words that it may answer, and what each stands for.

A canary goes through the stages of a study's round at a site and says of each whether it would
fail. What leaves is a word of a closed set a stage, and how long a round would take as a word of
another: no update, no metric, no count. The model that travels back is the one that came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from flwr.app import ConfigRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.flower.messages.content import configs_of
from wardround.common.runtime.fields import FieldError, Fields

CANARY = "query.canary"  # go through the stages, and say how each went
CARRY = "query.carry"  # send back the model that came, as an update travels
# The stages at a site, in their order.
DISK, BUDGET, DATA, CLASSES, STEP = "disk", "budget", "data", "classes", "step"
UPDATE, EVALUATION, METRICS, EVIDENCE, GUARD = (
    "update",
    "evaluation",
    "metrics",
    "evidence",
    "guard",
)
SITE_STAGES = (
    DISK,
    BUDGET,
    DATA,
    CLASSES,
    STEP,
    UPDATE,
    EVALUATION,
    METRICS,
    EVIDENCE,
    GUARD,
)
# Under patient-level privacy these depend on no patient, and are said; of all others together it is
# said whether they went, as the study's first round would show.
SAID_WITH_NOISE = frozenset({DISK, BUDGET, METRICS, EVIDENCE})
OK, UNTRIED, CLOSED = "ok", "untried", "closed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a word stands for, if it is not OK.

    Attributes:
        fails: Whether the study would fail over it there; else it is only to be known.
        remedy: What to do, and who.
    """

    fact: str
    remedy: str
    fails: bool = True


_LOG = "the hospital's log says which rows; it mends them"
FINDINGS: Mapping[str, Finding] = {
    "disk-full": Finding(
        "the site's disk has no room for what a round writes", "the hospital makes room"
    ),
    "budget-none": Finding(
        "the privacy budget is not enough for one round",
        "give the study more noise or fewer rounds, or the hospital raises its caps",
    ),
    "budget-some": Finding(
        "the privacy budget is enough for some rounds, and not for all of the study",
        "give the study more noise or fewer rounds, or the hospital raises its caps",
    ),
    "ledger": Finding(
        "the record of the privacy spent is damaged or in use", "the hospital puts it right"
    ),
    "rounds-some": Finding(
        "fewer rounds are left of the approval than the study has",
        "the hospital approves the study once more",
    ),
    "measured-some": Finding(
        "the policy lets fewer models be measured than the study has rounds",
        "the hospital raises largest_evaluations_of_a_study or largest_evaluations_a_day",
    ),
    "manifest": Finding(
        "the manifest cannot be used as it is", "the hospital runs 'wardround site doctor'"
    ),
    "few-unreadable": Finding(
        "some images cannot be read, fewer than the policy's smallest cell", _LOG
    ),
    "many-unreadable": Finding(
        "images cannot be read, as many as the policy's smallest cell or more", _LOG
    ),
    "unreadable-skipped": Finding(
        "images that cannot be read are left out, as the site's settings say", _LOG, fails=False
    ),
    "sizes": Finding(
        "its images differ in size and form no batch",
        "set data.size or training.patch_size in the study, or training.batch_size = 1",
    ),
    "too-few": Finding(
        "it has fewer training patients than its policy's smallest cohort",
        "leave the site out, or the hospital lowers smallest_cohort",
    ),
    "class-missing": Finding(
        "no training patient is of one of the classes",
        "leave the site out, merge classes, or have the hospital say which it has annotated",
    ),
    "no-validation": Finding(
        "it has no validation patients, and the study chooses its model by them",
        "the hospital writes a column 'split', or raise evaluation.validation_fraction",
    ),
    "no-test": Finding(
        "it has no test patients",
        "the hospital writes a column 'split', or raise evaluation.test_fraction",
    ),
    "memory": Finding(
        "the memory of its device is full at the study's batch size",
        "lower training.batch_size, training.patch_size or data.size",
    ),
    "device": Finding("its device cannot be used", "the hospital mends device in site.toml"),
    "training": Finding(
        "a training step fails there",
        "lower training.learning_rate, set training.gradient_clip; the hospital's log says more",
    ),
    "minutes": Finding(
        "a round would take longer than the hospital's policy allows",
        "ask for fewer training.local_steps, or the hospital raises largest_training_minutes",
    ),
    "not-finite": Finding(
        "its update holds numbers that are not finite, or far too large",
        "lower training.learning_rate or set training.gradient_clip",
    ),
    "unmoved": Finding(
        "its training moves no number of the model",
        "raise training.learning_rate, or shorten training.warmup",
        fails=False,
    ),
    "too-large": Finding(
        "an update is larger than the hospital's policy allows",
        "the hospital raises largest_message_megabytes, or set federation.compression",
    ),
    "evaluation": Finding(
        "a model cannot be evaluated there", "the hospital's log says why; it mends that"
    ),
    "withheld-policy": Finding(
        "its policy lets no metric out, in no round",
        "the hospital sets metrics = 'values' if it wants to be seen",
        fails=False,
    ),
    "withheld-few": Finding(
        "the study's metric would be withheld in every round: too few validation patients, of a "
        "class or in all, for the policy's smallest cell",
        "more validation patients (evaluation.validation_fraction), or another evaluation.metric",
    ),
    "undefined": Finding(
        "the study's metric has no value on its validation patients: a class is missing there",
        "more validation patients, or another evaluation.metric",
    ),
    "evidence-none": Finding(
        "its policy lets none of the study's packs of evidence out",
        "the hospital adds them to packs in policy.toml",
        fails=False,
    ),
    "evidence-some": Finding(
        "its policy lets only some of the study's packs of evidence out",
        "the hospital adds the others to packs in policy.toml",
        fails=False,
    ),
    "evidence-few": Finding(
        "it has fewer test patients than the policy's smallest cell: it would tell no evidence",
        "more test patients (evaluation.test_fraction)",
    ),
    "guard": Finding(
        "the update would not pass the site's guard",
        "install the same version of wardround at server and site",
    ),
    "failed": Finding(
        "a round fails there; in a study that protects its patients it does not say why",
        "the hospital's log says it",
    ),
    "internal": Finding("the site failed", "its log says why: please report it"),
}
WORDS = (OK, UNTRIED, CLOSED, *FINDINGS)
_STEPS = tuple(factor * 10**power for power, factor in product(range(6), (1, 2, 5)))
# How long a round takes, each "at most so many seconds".
SPANS = tuple(f"{seconds} s" for seconds in _STEPS)
UNKNOWN_SPAN = "not said"


@dataclass(frozen=True, slots=True)
class SiteCanary:
    """What a site answers.

    Attributes:
        stages: A word of :data:`WORDS` by stage, all of :data:`SITE_STAGES`.
        span: Of a round there, a word of :data:`SPANS`, or :data:`UNKNOWN_SPAN`.
    """

    site: str
    digest: str
    wardround: str
    stages: Mapping[str, str]
    span: str = UNKNOWN_SPAN


def span_of(seconds: float) -> str:
    """Return the word for a time: the next of 1, 2, 5, 10, 20, 50 ... seconds."""
    return next((f"{step} s" for step in _STEPS if seconds <= step), SPANS[-1])


def times_of(span: str) -> tuple[float, float] | None:
    """Return the shortest and the longest time that a word stands for; None where it says none."""
    if span not in SPANS:
        return None
    place = SPANS.index(span)
    return float(_STEPS[place - 1] if place else 0), float(_STEPS[place])


def canary_question(digest: str) -> RecordDict:
    """Return the content of the question: which study is meant, and nothing else."""
    return RecordDict({"instruction": ConfigRecord({"digest": digest})})


def asked_canary(content: RecordDict) -> str:
    """Return which study a question is about.

    Raises:
        RunError: It does not say so.
    """
    try:
        return Fields(configs_of(content).get("instruction"), "instruction").text("digest")
    except FieldError as error:
        msg = f"the server's question cannot be read ({error}): update wardround."
        raise RunError(msg) from None


def pack_canary(said: SiteCanary) -> RecordDict:
    """Return the content of the message that carries a site's answer."""
    return RecordDict(
        {
            "header": ConfigRecord(
                {
                    "site": said.site,
                    "digest": said.digest,
                    "wardround": said.wardround,
                    "span": said.span,
                }
            ),
            "stages": ConfigRecord({stage: said.stages[stage] for stage in SITE_STAGES}),
        }
    )


def unpack_canary(content: RecordDict) -> SiteCanary:
    """Return the answer in a message.

    Raises:
        RunError: It is none.
    """
    try:
        header = Fields(configs_of(content).get("header"), "header")
        stages = Fields(configs_of(content).get("stages"), "stages")
        words = {stage: stages.text(stage, least=1) for stage in SITE_STAGES}
        span = header.text("span", least=1)
        if not set(words.values()) <= set(WORDS) or span not in (*SPANS, UNKNOWN_SPAN):
            msg = "a word is none of those that a canary has"
            raise FieldError(msg)
        return SiteCanary(
            header.text("site", least=1),
            header.text("digest"),
            header.text("wardround", least=1),
            words,
            span,
        )
    except FieldError as error:
        msg = (
            f"its answer to the canary cannot be read ({error}): server and site must run the same "
            "version of wardround."
        )
        raise RunError(msg) from None
