"""What may be done from a page: checked and refused as by the API, and logged with who did it.

A page is for reading only unless it was started with its actions.
"""

import logging
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.html.live.page import Action, Fields, Told
from wardround.common.study.template import refused_at_first
from wardround.server.identity.invitations import invite
from wardround.server.operators.messages import Submission
from wardround.server.operators.page.asked_server import AskedServer
from wardround.server.scheduling.submission import read_study

logger = logging.getLogger(__name__)
_MOST_HOURS = 8760.0


def actions(server: AskedServer, folder: Path | None) -> Mapping[str, Action]:
    """Return what may be done, by name.

    Args:
        folder: The server folder, where the page is on its machine; else nobody is invited.
    """
    done: dict[str, Callable[[Fields], Told]] = {
        "submit": lambda fields: _submit(server, fields),
        "stop": lambda fields: _stop(server, fields),
        "resume": lambda fields: _resume(server, fields),
    }
    if folder is not None:
        done["invite"] = lambda fields: _invite(folder, fields)
    return {name: _logged(name, act) for name, act in done.items()}


def _logged(name: str, act: Callable[[Fields], Told]) -> Action:
    method = {
        "submit": "SubmitStudy",
        "stop": "StopRun",
        "resume": "ResumeRun",
        "invite": "InviteSite",
    }[name]

    def action(fields: Fields, who: str) -> Told:
        # What it is about may be hostile text, and of an invitation nothing is written down.
        logger.info("operator=%s method=%s by=page", who, method)
        return act(fields)

    return action


def _submit(server: AskedServer, fields: Fields) -> Told:
    text = _field(fields, "study", "the text of a study")
    form = "json" if text.lstrip().startswith("{") else "toml"
    study = read_study(text, form)
    sites = tuple(filter(None, (part.strip() for part in fields.get("sites", "").split(","))))
    done = server.submit(Submission(text, form, sites))
    turn = f"{done.ahead} before it" if done.ahead else "it is next"
    notes = "".join(f" Note: {note}" for note in refused_at_first(study))
    return Told(f"{done.study} is run {done.run}; {turn}. Digest {done.digest}.{notes}")


def _stop(server: AskedServer, fields: Fields) -> Told:
    run = server.stop(_field(fields, "run", "the name of a run"))
    return Told(f"{run.run} is {run.state}.")


def _resume(server: AskedServer, fields: Fields) -> Told:
    run = server.resume(_field(fields, "run", "the name of a run"))
    return Told(f"{run.run} is {run.state}.")


def _invite(folder: Path, fields: Fields) -> Told:
    site = _field(fields, "site", "the name of a site")
    token = invite(folder, site, timedelta(hours=_hours(fields.get("hours", ""))))
    said = (
        f"For {site}, once, until {token.expires:%Y-%m-%d %H:%M} UTC. At the hospital: "
        f"wardround site join TOKEN --folder {site!r}"
    )
    return Told(said, token.text())


def _field(fields: Fields, name: str, what: str) -> str:
    value = fields.get(name, "").strip()
    if not value:
        msg = f"{what} is missing: give it."
        raise InputError(msg)
    return value


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= _MOST_HOURS:
        msg = f"an invitation is for 1 to {_MOST_HOURS:g} hours, not {text[:20]!r}: give a number."
        raise InputError(msg)
    return hours
