"""The site's Flower ClientApp: unpack, call, pack.

Where a site's folder lies and which study it works on stand in the context, which the site itself
fills in; a message can name neither.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from wardround.client.session import SiteSession
from wardround.client.site import open_site
from wardround.client.workbench import Workbench
from wardround.common.errors import DataError, InputError, RunError, StudyError, WardroundError
from wardround.common.orders import unpack_order
from wardround.common.study import study_from_json
from wardround.common.update import (
    Refusal,
    pack_evaluation,
    pack_introduction,
    pack_refusal,
    pack_update,
)

logger = logging.getLogger(__name__)
app = ClientApp()

# One process keeps its sites warm: data, transforms and network stay loaded between messages.
_BENCHES: dict[tuple[str, str], Workbench] = {}
_SESSIONS: dict[tuple[str, str], SiteSession] = {}
_CODES = {DataError: "data", StudyError: "study", InputError: "device", RunError: "training"}


@app.query("introduce")
def introduce(message: Message, context: Context) -> Message:
    """Load the site's data and say that it is ready."""
    alone = bool(context.node_config.get("alone", False))
    return _answer(message, context, lambda site: pack_introduction(site.introduce(alone)))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model, train it, answer with both."""
    alone = bool(context.node_config.get("alone", False))
    return _answer(
        message, context, lambda site: pack_update(site.train(unpack_order(message.content), alone))
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on a split."""
    return _answer(
        message, context, lambda site: pack_evaluation(site.evaluate(unpack_order(message.content)))
    )


def open_session(context: Context) -> SiteSession:
    """Return the warm session of the context's site and study, opened at the first call."""
    folder, text = str(context.node_config["site"]), str(context.run_config["study"])
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


def _answer(
    message: Message, context: Context, work: Callable[[SiteSession], RecordDict]
) -> Message:
    try:
        content = work(open_session(context))
    except WardroundError as error:
        code = _CODES.get(type(error), "input")
        logger.warning("refused type=%s code=%s", message.metadata.message_type, code)
        reason = str(error) if context.node_config.get("explain-refusals") else ""
        site = Path(str(context.node_config["site"])).name
        content = pack_refusal(Refusal(site, code, reason))
    return Message(content, reply_to=message)
