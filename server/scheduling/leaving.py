"""What operators ask of those who leave, answered here or in a process aside.

A plan reads commits, for which torch is imported: the process that watches over the server stays
small, and has a process of its own answer. One is answered at a time.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from wardround.common.errors import InputError, RunError, WardroundError
from wardround.server.scheduling.store import all_runs
from wardround.server.sites.withdrawal_requests import open_requests
from wardround.server.sites.withdrawals_told import (
    WithdrawalAsked,
    WithdrawalPlanned,
    Withdrawals,
    WithdrawalWaiting,
)

_PATIENCE_SECONDS = 240.0  # a model of gigabytes is copied
_ONE_AT_A_TIME = Lock()
_REFUSED = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a plan, or to begin."""

    what: Literal["plan", "begin"]
    about: WithdrawalAsked


_QUESTION, _ANSWER = TypeAdapter(Question), TypeAdapter(WithdrawalPlanned)


def waiting(folder: Path) -> Withdrawals:
    """Return what sites asked and no operator has begun yet, the oldest first."""
    runs = {row.digest: row.run for row in all_runs(folder)}
    return Withdrawals(
        tuple(
            WithdrawalWaiting(
                one.asked.site,
                one.asked.without,
                float(one.asked.time),
                one.asked.study,
                runs.get(one.asked.study, ""),
            )
            for one in open_requests(folder)
        )
    )


def plan(folder: Path, asked: WithdrawalAsked) -> WithdrawalPlanned:
    """Return what a run without a site would repeat; nothing is changed.

    Raises:
        InputError: There is no such run, or nothing of the site in it, or too few are left.
        RunError: The run has no commit.
    """
    return _answered(folder, asked, begins=False)


def begin(folder: Path, asked: WithdrawalAsked) -> WithdrawalPlanned:
    """Revoke a run's model, stop the run, and queue its repeat; once, however often it is asked.

    Raises:
        InputError: As :func:`plan`.
        RunError: Database or folder cannot be written, or a commit is damaged.
    """
    return _answered(folder, asked, begins=True)


def _answered(folder: Path, asked: WithdrawalAsked, begins: bool) -> WithdrawalPlanned:
    from wardround.server.scheduling.repeat import begin_repeat, propose

    proposed = propose(folder, asked.run, asked.site, "patients" if asked.patients else "site")
    row = begin_repeat(folder, proposed) if begins else None
    words = list(proposed.plan.words())
    if proposed.begun:
        words.append(f"It was begun before: run {proposed.begun}.")
    elif proposed.request is None:
        words.append(f"{asked.site} has not asked for it: this is your own decision.")
    plan_of = asdict(proposed.plan)
    return WithdrawalPlanned(
        **{**plan_of, "first_rounds": dict(plan_of["first_rounds"])},
        asked=proposed.request is not None,
        run=proposed.begun if row is None else row.run,
        digest="" if row is None else row.digest,
        words=tuple(words),
    )


def answer_aside(folder: Path, question: Question) -> WithdrawalPlanned:
    """Return the answer to a question, found in a process that ends with it.

    Raises:
        InputError: It is refused; with the sentence.
        RunError: It could not be answered; with the sentence, as far as there is one.
    """
    with _ONE_AT_A_TIME:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", __name__, str(folder.resolve())],
                input=json.dumps(asdict(question)),
                capture_output=True,
                text=True,
                timeout=_PATIENCE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            msg = "the process that reads the run's commits did not end: ask again later."
            raise RunError(msg) from None
    try:
        said: Mapping[str, Any] = json.loads(ended.stdout)
        if "refused" in said:
            raise (InputError if ended.returncode == _REFUSED else RunError)(str(said["refused"]))
        return _ANSWER.validate_python(said)
    except (ValueError, ValidationError):
        logger.error("what operators asked of who leaves was not answered: %s", ended.stderr)
        msg = "the server could not answer: its log says more."
        raise RunError(msg) from None


def main(arguments: list[str]) -> int:
    """Answer the question that comes in, for :func:`answer_aside`; return the exit code."""
    try:
        question = _QUESTION.validate_json(sys.stdin.read())
        ask = begin if question.what == "begin" else plan
        found = asdict(ask(Path(arguments[0]), question.about))
    except WardroundError as error:
        sys.stdout.write(json.dumps({"refused": str(error)}))
        return _REFUSED if isinstance(error, InputError) else 1
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
