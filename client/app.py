"""The site's Flower ClientApp: unpack, call, pack.

Where a site's folder lies and which study it works on stand in the context, which the site itself
fills in; a message can name neither. Whatever goes wrong, what leaves is a message that has passed
the site's guard: Flower would send the text of an exception to the server, so none gets out.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from wardround.client.egress.gateway import Gateway
from wardround.client.model_context import ModelContext
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.rules import DeniedError, Facts
from wardround.client.privacy.ledger.budget import BudgetError
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.session import SiteSession
from wardround.client.site.folder import open_site
from wardround.common.errors import (
    AuditError,
    DataError,
    GuardError,
    InputError,
    ModelError,
    PolicyError,
    RunError,
    StudyError,
    WardroundError,
    is_full_disk,
)
from wardround.common.messages.instructions import unpack_instruction
from wardround.common.messages.replies import Refusal, pack_refusal
from wardround.common.study.loading import require_promise, study_from_json

logger = logging.getLogger(__name__)
app = ClientApp()

# One process keeps its sites warm: data, transforms and network stay loaded between messages.
_BENCHES: dict[tuple[str, str], ModelContext] = {}
_SESSIONS: dict[tuple[str, str], SiteSession] = {}
# Of the nearest class of an error that is named here.
_CODES: dict[type[BaseException], str] = {
    PolicyError: "policy",
    BudgetError: "budget",
    LedgerError: "ledger",
    GuardError: "guard",
    AuditError: "audit",
    DataError: "data",
    StudyError: "study",
    ModelError: "input",
    InputError: "device",
    RunError: "training",
    WardroundError: "input",
    Exception: "internal",
}


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Load the site's data and say that it is ready."""
    standalone = _is_standalone(context)
    return _reply(message, context, lambda gateway, site: gateway.describe(site, standalone))


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


def refuse(message: Message, context: Context, error: WardroundError) -> Message:
    """Return the refusal of a message that nobody works on: it is too large, say."""
    gateway = None
    with suppress(WardroundError):
        gateway = Gateway.open(Path(_key(context)[0]), _explains_refusals(context))
    return Message(_refusal(gateway, context, error), reply_to=message)


def reply_again(message: Message, context: Context, content: RecordDict) -> Message:
    """Return an update that was computed before, if it may still leave."""
    gateway = None
    try:
        folder, text = _key(context)
        gateway = Gateway.open(Path(folder), _explains_refusals(context))
        content = gateway.send_again(study_from_json(text), content)
    except Exception as error:
        content = _refusal(gateway, context, error)
    return Message(content, reply_to=message)


def open_session(context: Context) -> SiteSession:
    """Return the warm session of the context's site and study, opened at the first call."""
    folder, text = _key(context)
    session = _SESSIONS.get((folder, text))
    if session is None:
        site = open_site(Path(folder))
        device = str(context.node_config.get("device", site.settings.device))
        model_context = _BENCHES.get((text, device))
        if model_context is None:
            model_context = _BENCHES[text, device] = ModelContext.build(
                study_from_json(text), device
            )
        session = _SESSIONS[folder, text] = SiteSession(site, model_context)
    return session


def close_sessions() -> None:
    """Forget all warm sessions, and with them the data they hold."""
    _SESSIONS.clear()
    _BENCHES.clear()


def _key(context: Context) -> tuple[str, str]:
    return str(context.node_config["site"]), str(context.run_config["study"])


def _explains_refusals(context: Context) -> bool:
    """Return whether the site says that it is part of a simulation."""
    return bool(context.node_config.get("explain-refusals", False))


def _is_standalone(context: Context) -> bool:
    return bool(context.node_config.get("standalone", False))


def _reply(
    message: Message, context: Context, work: Callable[[Gateway, SiteSession], RecordDict]
) -> Message:
    """Return what a site answers; whatever goes wrong, a refusal and never an exception."""
    gateway = None
    try:
        folder, text = _key(context)
        gateway = Gateway.open(Path(folder), _explains_refusals(context))
        if (folder, text) not in _SESSIONS:  # before anything is read or built for it
            study = study_from_json(text)
            gateway.require_allowed(study, Facts())
            with plan_limit():  # only now: a study that nobody approved is not worked out
                require_promise(study)
        content = work(gateway, open_session(context))
    except Exception as error:
        content = _refusal(gateway, context, error)
    return Message(content, reply_to=message)


def _refusal(gateway: Gateway | None, context: Context, error: Exception) -> RecordDict:
    code, reason = _code(error), str(error)
    if code == "internal":
        reason = f"{type(error).__name__} in the site's work, see the log"
    explains = gateway.explains_refusals if gateway else _explains_refusals(context)
    _log(error, code, reason, explains)
    try:
        if gateway is not None:
            return gateway.refuse(code, reason, error)
    except Exception as unwritten:  # the log is full, say: a word that holds nothing of the site
        logger.error("refusal not written down: %s", type(unwritten).__name__)
        code = "disk" if is_full_disk(unwritten) else "audit"
    name = Path(_key(context)[0]).name if explains else ""
    return pack_refusal(Refusal(name, code, reason if explains else ""))


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
