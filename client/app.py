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

from wardround.client.egress.gateway import Door
from wardround.client.model_context import Workbench
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
)
from wardround.common.messages.instructions import unpack_order
from wardround.common.messages.replies import Refusal, pack_refusal
from wardround.common.study.study import study_from_json

logger = logging.getLogger(__name__)
app = ClientApp()

# One process keeps its sites warm: data, transforms and network stay loaded between messages.
_BENCHES: dict[tuple[str, str], Workbench] = {}
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


@app.query("introduce")
def introduce(message: Message, context: Context) -> Message:
    """Load the site's data and say that it is ready."""
    alone = _is_alone(context)
    return _answer(message, context, lambda door, site: door.introduce(site, alone))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model, train it, answer with both."""
    alone = _is_alone(context)
    return _answer(
        message,
        context,
        lambda door, site: door.train(site, unpack_order(message.content), alone),
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on a split."""
    return _answer(
        message, context, lambda door, site: door.evaluate(site, unpack_order(message.content))
    )


def refuse(message: Message, context: Context, error: WardroundError) -> Message:
    """Return the refusal of a message that nobody works on: it is too large, say."""
    door = None
    with suppress(WardroundError):
        door = Door.open(Path(_key(context)[0]), _explains(context))
    return Message(_refusal(door, context, error), reply_to=message)


def answer_again(message: Message, context: Context, content: RecordDict) -> Message:
    """Return an update that was computed before, if it may still leave."""
    door = None
    try:
        folder, text = _key(context)
        door = Door.open(Path(folder), _explains(context))
        content = door.send_again(study_from_json(text), content)
    except Exception as error:
        content = _refusal(door, context, error)
    return Message(content, reply_to=message)


def open_session(context: Context) -> SiteSession:
    """Return the warm session of the context's site and study, opened at the first call."""
    folder, text = _key(context)
    session = _SESSIONS.get((folder, text))
    if session is None:
        site = open_site(Path(folder))
        device = str(context.node_config.get("device", site.settings.device))
        bench = _BENCHES.get((text, device))
        if bench is None:
            bench = _BENCHES[text, device] = Workbench.build(study_from_json(text), device)
        session = _SESSIONS[folder, text] = SiteSession(site, bench)
    return session


def close_sessions() -> None:
    """Forget all warm sessions, and with them the data they hold."""
    _SESSIONS.clear()
    _BENCHES.clear()


def _key(context: Context) -> tuple[str, str]:
    return str(context.node_config["site"]), str(context.run_config["study"])


def _explains(context: Context) -> bool:
    """Return whether the site says that it is part of a simulation."""
    return bool(context.node_config.get("explain-refusals", False))


def _is_alone(context: Context) -> bool:
    return bool(context.node_config.get("alone", False))


def _answer(
    message: Message, context: Context, work: Callable[[Door, SiteSession], RecordDict]
) -> Message:
    """Return what a site answers; whatever goes wrong, a refusal and never an exception."""
    door = None
    try:
        folder, text = _key(context)
        door = Door.open(Path(folder), _explains(context))
        if (folder, text) not in _SESSIONS:  # before anything is read or built for it
            door.require_allowed(study_from_json(text), Facts())
        content = work(door, open_session(context))
    except Exception as error:
        content = _refusal(door, context, error)
    return Message(content, reply_to=message)


def _refusal(door: Door | None, context: Context, error: Exception) -> RecordDict:
    code, reason = _code(error), str(error)
    if code == "internal":
        reason = f"{type(error).__name__} in the site's work, see the log"
    explains = door.speaks if door else _explains(context)
    _log(error, code, reason, explains)
    try:
        if door is not None:
            return door.refuse(code, reason, error)
    except Exception as unwritten:  # the log is full, say: a word that holds nothing of the site
        logger.error("refusal not written down: %s", type(unwritten).__name__)
        code = "audit"
    name = Path(_key(context)[0]).name if explains else ""
    return pack_refusal(Refusal(name, code, reason if explains else ""))


def _code(error: Exception) -> str:
    if isinstance(error, DeniedError):
        return error.code
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def _log(error: Exception, code: str, reason: str, explains: bool) -> None:
    """Say at the site what happened: where the server is not told, a refusal's own sentence."""
    if code == "internal" and explains:
        logger.error("site failed", exc_info=error)
    elif explains:
        logger.warning("refused code=%s", code)
    else:
        logger.warning("refused code=%s: %s", code, reason)
