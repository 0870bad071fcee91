"""The site's Flower ClientApp: unpack, call, pack.

Where a site's folder lies and which study it works on stand in the context, which the site itself
fills in; a message can name neither. Whatever goes wrong, what leaves is a message that has passed
the site's guard: Flower would send the text of an exception to the server, so none gets out.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from wardround.client.egress.gateway import Gateway
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import open_policy
from wardround.client.policy.rules import DeniedError, Facts
from wardround.client.privacy.ledger.budget import ApprovalError, BudgetError
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import (
    AuditError,
    DataError,
    GuardError,
    InputError,
    ModelError,
    PackageError,
    PolicyError,
    RunError,
    StudyError,
    WardroundError,
    describe_defect,
    is_full_disk,
)
from wardround.common.messages.instructions import unpack_instruction
from wardround.common.messages.refusals import CLOSED, SAID_UNDER_PRIVACY
from wardround.common.messages.replies import Refusal, pack_refusal
from wardround.common.models.pretrained import MissingWeightsError
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.runtime.system.signals import raise_if_ctrl_c
from wardround.common.study.loading import require_promise, study_from_json
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
app = ClientApp()

# One process keeps its sites warm: data, transforms and network stay loaded between messages. What
# is kept is named by digests, for a server may write one study in any number of ways; the last of
# a site is used last.
_SESSIONS: dict[tuple[str, str], SiteSession] = {}  # by site folder and digest
_CONTEXTS: WeakValueDictionary[tuple[str, str], ModelContext] = WeakValueDictionary()
_KEPT_STUDIES = 2  # of a site: each holds its images
_KEPT_TEXTS = 4  # of studies, each of 1 MB at most
# Of the nearest class of an error that is named here.
_CODES: dict[type[BaseException], str] = {
    PolicyError: "policy",
    ApprovalError: "approval",
    BudgetError: "budget",
    LedgerError: "ledger",
    GuardError: "guard",
    AuditError: "audit",
    MaskingError: "masking",
    DataError: "data",
    PackageError: "packages",
    StudyError: "study",
    MissingWeightsError: "weights",
    ModelError: "input",
    InputError: "device",
    RunError: "training",
    WardroundError: "input",
    Exception: "internal",
}


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Load the site's data and say that it is ready; keep the weights that the study names."""
    standalone = _is_standalone(context)

    def work(gateway: Gateway) -> RecordDict:
        gateway.keep_weights(_site_and_study(context)[1], message.content)
        return gateway.describe(open_session(context), standalone)

    return _answer(message, context, work)


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Count the site's training data in the histograms that the study is planned from."""
    from wardround.common.messages.statistics import asked_digest

    return _reply(
        message,
        context,
        lambda gateway, site: gateway.tell_statistics(site, asked_digest(message.content)),
    )


@app.query("canary")
def canary(message: Message, context: Context) -> Message:
    """Go through the stages of the study's round, and say in a word a stage how each went."""

    def work(gateway: Gateway) -> RecordDict:
        folder, study = _site_and_study(context)
        device, is_tolerant = _device(context, gateway.site), _is_tolerant(Path(folder), study)
        return gateway.tell_canary(study, message.content, device, is_tolerant)

    return _answer(message, context, work)


@app.query("carry")
def carry(message: Message, context: Context) -> Message:
    """Send the model that came back, as the study's updates travel."""

    def work(gateway: Gateway) -> RecordDict:
        study = _site_and_study(context)[1]
        return gateway.carry(study, message.content, _device(context, gateway.site))

    return _answer(message, context, work)


@app.query("masking")
def masking(message: Message, context: Context) -> Message:
    """Go on with a masked round: shares of secrets, the masked update, what unmasks the sum."""
    return _reply(
        message, context, lambda gateway, site: gateway.answer_masking(site, message.content)
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model, train it, answer with both."""
    standalone = _is_standalone(context)
    return _reply(
        message,
        context,
        lambda gateway, site: gateway.train(site, unpack_instruction(message.content), standalone),
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on a split."""
    return _reply(
        message,
        context,
        lambda gateway, site: gateway.evaluate(site, unpack_instruction(message.content)),
    )


@app.evaluate("pack")
def pack(message: Message, context: Context) -> Message:
    """Answer with the sums of evidence that the study names, of its finished model."""
    return _reply(message, context, lambda gateway, site: gateway.tell_packs(site, message.content))


@app.evaluate("placements")
def placements(message: Message, context: Context) -> Message:
    """Answer with the squares of placement values against the sites' merged histograms."""
    return _reply(
        message, context, lambda gateway, site: gateway.tell_placements(site, message.content)
    )


def refuse(message: Message, context: Context, error: WardroundError) -> Message:
    """Return the refusal of a message that nobody works on: it is too large, say."""
    gateway = None
    with suppress(WardroundError):
        gateway = Gateway.open(Path(_site_of(context)), _explains_refusals(context))
    return Message(_refusal(gateway, context, error), reply_to=message)


def reply_again(message: Message, context: Context, content: RecordDict) -> Message:
    """Return an update that was computed before, if it may still leave."""
    gateway = None
    try:
        gateway = Gateway.open(Path(_site_of(context)), _explains_refusals(context))
        content = gateway.send_again(_site_and_study(context)[1], content)
    except Exception as error:
        raise_if_ctrl_c(error)
        content = _refusal(gateway, context, error)
    return Message(content, reply_to=message)


def open_session(context: Context) -> SiteSession:
    """Return the warm session of the context's site and study, opened at the first call."""
    folder, study = _site_and_study(context)
    session = _SESSIONS.pop((folder, study.digest), None)
    if session is None:
        kept = [key for key in _SESSIONS if key[0] == folder]
        for key in kept[: len(kept) + 1 - _KEPT_STUDIES]:
            del _SESSIONS[key]
        site = open_site(Path(folder))
        device = _device(context, site)
        model_context = _CONTEXTS.get((study.digest, device))
        if model_context is None:
            model_context = ModelContext.build(study, device)
            _CONTEXTS[study.digest, device] = model_context
        site = replace(site, is_tolerant=_is_tolerant(site.folder, study))
        session = SiteSession(site, model_context)
    _SESSIONS[folder, study.digest] = session
    return session


def held_session(context: Context) -> SiteSession | None:
    """Return the context's session if it is warm: it has been allowed, and has its data."""
    folder, study = _site_and_study(context)
    return _SESSIONS.get((folder, study.digest))


def _device(context: Context, site: Site) -> str:
    """Return the name of what a site trains on: a simulation's own, or as its site.toml says."""
    return str(context.node_config.get("device", site.settings.first_device))


def _is_tolerant(folder: Path, study: Study) -> bool:
    """Return whether a patient whose data cannot be used counts as nobody.

    So it is under patient-level privacy: a refusal would tell of that one patient. A simulation is
    there to find such faults, and stops.
    """
    with suppress(PolicyError):
        return what_leaves(study).noise_added_by == "site" and not open_policy(folder).simulated
    return False


def close_sessions() -> None:
    """Forget all warm sessions, and with them the data they hold."""
    _SESSIONS.clear()
    _study_of.cache_clear()


def _site_of(context: Context) -> str:
    return str(context.node_config["site"])


def _site_and_study(context: Context) -> tuple[str, Study]:
    return _site_of(context), _study_of(str(context.run_config["study"]))


@lru_cache(maxsize=_KEPT_TEXTS)
def _study_of(text: str) -> Study:
    """Return the study of a text; a round reads none."""
    return study_from_json(text)


def _explains_refusals(context: Context) -> bool:
    """Return whether the site says that it is part of a simulation."""
    return bool(context.node_config.get("explain-refusals", False))


def _is_standalone(context: Context) -> bool:
    return bool(context.node_config.get("standalone", False))


def _reply(
    message: Message, context: Context, work: Callable[[Gateway, SiteSession], RecordDict]
) -> Message:
    """Return what a site answers with its data of the study at hand."""
    return _answer(message, context, lambda gateway: work(gateway, open_session(context)))


def _answer(message: Message, context: Context, work: Callable[[Gateway], RecordDict]) -> Message:
    """Return what a site answers; whatever goes wrong, a refusal and never an exception."""
    gateway = None
    try:
        gateway = Gateway.open(Path(_site_of(context)), _explains_refusals(context))
        gateway.take_receipt(message.content)
        folder, study = _site_and_study(context)
        gateway.let_go(one for (place, _), one in _SESSIONS.items() if place == folder)
        if (folder, study.digest) not in _SESSIONS:  # before anything is read or built for it
            gateway.require_allowed(study, Facts())
            _require_packages(study)
            with plan_limit():  # only now: a study that nobody approved is not worked out
                require_promise(study)
        content = work(gateway)
    except Exception as error:
        raise_if_ctrl_c(error)
        content = _refusal(gateway, context, error)
    return Message(content, reply_to=message)


def _require_packages(study: Study) -> None:
    """Check that the packages of an allowed study are installed as it names them, by their files.

    Nothing of them is imported before.
    """
    if study.packages:
        from wardround.common.files.packages.importing import require_installed

        require_installed(study.packages)


def _refusal(gateway: Gateway | None, context: Context, error: Exception) -> RecordDict:
    code, reason = _code(error), str(error)
    if code == "internal":
        reason = f"{describe_defect(error)}{_beside_packages(context)}: please report it"
    explains = gateway.explains_refusals if gateway else _explains_refusals(context)
    _log(error, code, reason, explains)
    said = code if explains or code in SAID_UNDER_PRIVACY or not _protects(context) else CLOSED
    try:
        if gateway is not None:
            return gateway.refuse(said, reason, error, code)
    except Exception as unwritten:  # the log is full, say: a word that holds nothing of the site
        logger.error("refusal not written down: %s", type(unwritten).__name__)
        said = "disk" if is_full_disk(unwritten) else "audit"
    name = Path(_site_of(context)).name if explains else ""
    return pack_refusal(Refusal(name, said, reason if explains else ""))


def _beside_packages(context: Context) -> str:
    """Return whose code ran beside ours, which may be what is at fault; "" for nobody's."""
    try:
        names = _site_and_study(context)[1].packages
    except Exception:  # whatever the other side sent
        return ""
    return f", or of what the study takes from {', '.join(sorted(names))}" if names else ""


def _protects(context: Context) -> bool:
    """Return whether the study protects its patients; so it is where nobody can read it."""
    try:
        study = _site_and_study(context)[1]
    except Exception:  # whatever the other side sent
        return True
    return what_leaves(study).noise_added_by == "site"


def _code(error: Exception) -> str:
    if isinstance(error, DeniedError):
        return error.code
    if is_full_disk(error):
        return "disk"
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def _log(error: Exception, code: str, reason: str, explains: bool) -> None:
    """Say at the site what happened: where the server is not told, a refusal's own sentence."""
    if code == "internal" and explains:
        logger.error("site failed", exc_info=error)
    elif explains:
        logger.warning("refused code=%s", code)
    else:
        logger.warning("refused code=%s: %s", code, reason)
