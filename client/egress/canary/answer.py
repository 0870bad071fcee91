"""What a site says of a canary round: a word a stage, and of a private study hardly one.

Nothing that a server sends has a part in it: it names a study that a person here approved, and the
site tries that study's own first model. So what is told is whether the approved study would fail,
which its first round shows too, and a server cannot ask anything else of the patients. Nothing is
charged: no number leaves that patients have made.
"""

from collections.abc import Callable
from dataclasses import replace

import wardround
from wardround.client.egress.canary.stages import Walk
from wardround.client.egress.guard import Exactly, MessageSchema, OneOf, Rule
from wardround.client.policy.policy import Policy
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import Site
from wardround.common.errors import InputError, ModelError
from wardround.common.messages.canary import (
    CLOSED,
    DATA,
    EVALUATION,
    FINDINGS,
    GUARD,
    OK,
    SAID_WITH_NOISE,
    SITE_STAGES,
    SPANS,
    STEP,
    UNKNOWN_SPAN,
    UNTRIED,
    UPDATE,
    WORDS,
    SiteCanary,
    span_of,
)
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

_OF_A_ROUND = (DATA, STEP, UPDATE, EVALUATION, GUARD)  # without one of these it is refused


def try_stages(
    site: Site, study: Study, policy: Policy, build: Callable[[], ModelContext]
) -> SiteCanary:
    """Go through the stages, and return what of it may leave.

    Args:
        policy: Allows the study.
        build: Makes the study's network, on the site's device.
    """
    said = SiteCanary(
        site.name, study.digest, wardround.__version__, dict.fromkeys(SITE_STAGES, UNTRIED)
    )
    try:
        walk = Walk(site, build(), policy)
    except (ModelError, InputError):
        return replace(said, stages={**said.stages, STEP: "device"})
    walk.go()
    span = UNKNOWN_SPAN if walk.seconds is None else span_of(walk.seconds)
    whole = replace(said, stages=walk.words, span=span)
    return closed(whole) if what_leaves(study).noise_added_by == "site" else whole


def closed(said: SiteCanary) -> SiteCanary:
    """Return what is told of a study that protects its patients.

    Whoever knew all others could learn of one patient from a word about the data. Whether a round
    can be answered at all is told: the first round could not hide that either. What it could hide,
    a class that is missing or a part that is empty, is not told.
    """
    told = {s: word if s in SAID_WITH_NOISE else CLOSED for s, word in said.stages.items()}
    rest = [said.stages[stage] for stage in _OF_A_ROUND]
    fails = any(word == UNTRIED or (word in FINDINGS and FINDINGS[word].fails) for word in rest)
    return replace(said, stages={**told, STEP: "failed" if fails else OK}, span=UNKNOWN_SPAN)


def canary_schema(site: Site, study: Study) -> MessageSchema:
    """Return what such an answer may hold."""
    header: dict[str, Rule] = {
        "site": Exactly(site.name),
        "digest": Exactly(study.digest),
        "wardround": Exactly(wardround.__version__),
        "span": OneOf((*SPANS, UNKNOWN_SPAN)),
    }
    stages: dict[str, Rule] = dict.fromkeys(SITE_STAGES, OneOf(WORDS))
    return MessageSchema({"header": header, "stages": stages})
