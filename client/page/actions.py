"""What may be done from the hospital's page: reading a study, deciding on it, looking at the data.

Deciding is left out unless whoever started the page allowed it.
"""

from collections.abc import Mapping

from wardround.client.page.errands import Errand, Errands
from wardround.common.errors import InputError
from wardround.common.html.live.page import Action, Fields, Told

_BUSY = "this is being done already: wait until it has ended."
_NO_STUDY = "no study was named: load the page again."


def actions_of(errands: Errands, may_decide: bool) -> Mapping[str, Action]:
    """Return the actions of a page by name.

    Args:
        errands: Does what takes a while.
        may_decide: Whether studies may be approved and rejected.
    """
    desk = _Desk(errands)
    reading: dict[str, Action] = {
        "explain": desk.explain,
        "check": desk.check,
        "doctor": desk.doctor,
    }
    if not may_decide:
        return reading
    return {**reading, "approve": desk.approve, "reject": desk.reject}


class _Desk:
    """The actions; a refusal is an InputError."""

    def __init__(self, errands: Errands) -> None:
        self._errands = errands

    def explain(self, fields: Fields, who: str) -> Told:
        """Have it worked out what a study asks."""
        self._start("explain", _study(fields))
        return Told("It is being worked out what the study asks, further down.")

    def check(self, fields: Fields, who: str) -> Told:
        """Have the data looked at."""
        self._start("check")
        return Told("Each examination is looked at; what is found stands under Data check.")

    def doctor(self, fields: Fields, who: str) -> Told:
        """Have the site examined."""
        self._start("doctor")
        return Told("The site is examined; what is found stands under Data check.")

    def approve(self, fields: Fields, who: str) -> Told:
        """Approve a study with the terms that were shown."""
        study, mark = _study(fields), fields.get("mark", "")
        said = self._wait("approve", study, mark)
        if said.get("changed"):
            self._errands.start("explain", study)
            msg = "NOT approved: what it asks or spends here has changed since you read it."
            raise InputError(msg)
        self._errands.forget("explain")
        return Told(str(said.get("words")))

    def reject(self, fields: Fields, who: str) -> Told:
        """Reject a study."""
        said = self._wait("reject", _study(fields), "")
        self._errands.forget("explain")
        return Told(str(said.get("words")))

    def _start(self, name: str, about: str = "") -> None:
        if not self._errands.start(name, about):
            raise InputError(_BUSY)

    def _wait(self, name: str, about: str, mark: str) -> Mapping[str, object]:
        """Do an errand and return what it said.

        Raises:
            InputError: It was refused.
        """
        done: Errand | None = self._errands.do(name, about, mark)
        if done is None:
            raise InputError(_BUSY)
        if done.said is None:
            raise InputError(done.error)
        return done.said


def _study(fields: Fields) -> str:
    digest = fields.get("study", "")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):  # SHA-256
        raise InputError(_NO_STUDY)
    return digest
