"""How often a site has measured models for studies without privacy, counted on its disk.

Such a measurement has no noise: who may ask for many, of models of their own choice, reads single
patients out of them. So each is counted before it is made, and the policy says how many a day and
a study may have. A count is the length of a file, so that no kill can leave half of one.
"""

import os
from contextlib import closing
from datetime import date
from pathlib import Path

from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import CANARY_RULE, EVALUATION_RULE, DeniedError
from wardround.common.errors import PolicyError
from wardround.common.files.atomic import flush_folder, make_private_folder, open_or_make
from wardround.common.files.lock import held_alone

EVALUATIONS_FOLDER = "evaluations"
CANARIES_FOLDER = "canaries"
_DAY, _STUDY = "day-", "study-"
_APPENDING = os.O_WRONLY | os.O_APPEND
_SHOWN = 12  # of a digest


def count_evaluation(folder: Path, digest: str, policy: Policy, today: date) -> None:
    """Count that a model is measured now; the count is on the disk when this returns.

    A simulated site counts nothing, for its patients are nobody's; nor does a site whose policy
    lets no measurement out.

    Args:
        folder: Of the site.
        digest: Of the study.
        today: The site's date.

    Raises:
        DeniedError: The policy allows no more of them; nothing is counted.
        PolicyError: It cannot be counted, so it is not made.
    """
    if policy.simulated or policy.metrics == "none":
        return
    counts = folder / EVALUATIONS_FOLDER
    day, study = counts / f"{_DAY}{today.isoformat()}", counts / f"{_STUDY}{digest}"
    try:
        make_private_folder(counts)
        with held_alone(counts):
            _check(_count(day), policy.largest_evaluations_a_day, "a_day", digest)
            _check(_count(study), policy.largest_evaluations_of_a_study, "of_a_study", digest)
            for path in (day, study):
                _add_one(path)
            flush_folder(counts)
            _forget_before(counts, day.name)
    except OSError as error:
        msg = (
            f"cannot count in {counts} that a model is measured ({error.strerror}), so it is not: "
            "make room on the site's disk."
        )
        raise PolicyError(msg) from None


def count_canary(folder: Path, digest: str, policy: Policy) -> None:
    """Count that a study's canary round is answered now; the count is on the disk at the return.

    Each answer tells whether the study would fail here: a server may not ask for ever.

    Raises:
        DeniedError: The policy allows no more of them; nothing is counted.
        PolicyError: It cannot be counted, so it is not answered.
    """
    if policy.simulated:
        return
    most, counts = policy.largest_canaries_of_a_study, folder / CANARIES_FOLDER
    path = counts / digest
    try:
        make_private_folder(counts)
        with held_alone(counts):
            if (done := _count(path)) >= most:
                msg = (
                    f"this site has answered {done} canary rounds of study {digest[:_SHOWN]}, and "
                    f"largest_canaries_of_a_study = {most} in its policy.toml allows no more."
                )
                raise DeniedError(msg, (CANARY_RULE,), digest)
            _add_one(path)
            flush_folder(counts)
    except OSError as error:
        msg = (
            f"cannot count a canary round in {counts} ({error.strerror}), so it is not answered: "
            "make room on the site's disk."
        )
        raise PolicyError(msg) from None


def evaluations_left(folder: Path, digest: str, policy: Policy, today: date) -> int:
    """Return how many more models of a study the policy lets this site measure, if all today."""
    counts = folder / EVALUATIONS_FOLDER
    day, study = counts / f"{_DAY}{today.isoformat()}", counts / f"{_STUDY}{digest}"
    return min(
        policy.largest_evaluations_a_day - _count(day),
        policy.largest_evaluations_of_a_study - _count(study),
    )


def _count(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _add_one(path: Path) -> None:
    descriptor = open_or_make(path, _APPENDING)
    with closing(os.fdopen(descriptor, "wb", buffering=0)) as file:
        file.write(b".")
        os.fsync(descriptor)


def _forget_before(counts: Path, day: str) -> None:
    """Remove the counts of days that are over."""
    for path in counts.glob(f"{_DAY}*"):
        if path.name < day:
            path.unlink(missing_ok=True)


def _check(count: int, most: int, limit: str, digest: str) -> None:
    if count < most:
        return
    of_what = "today" if limit == "a_day" else f"for study {digest[:_SHOWN]}"
    msg = (
        f"this site has measured {count} models {of_what}, and largest_evaluations_{limit} = "
        f"{most} in its policy.toml allows no more: have models measured less often, or raise it."
    )
    raise DeniedError(msg, (EVALUATION_RULE,), digest)
