"""One check of the doctor: what it found, and what to do about it.

A check never names a patient, a file of a patient's data or a value of a manifest: it counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wardround.common.errors import WardroundError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        status: "ok"; "warn": it works, or will, but a person should look; "fail": it cannot work.
        remedy: What to do; "" where nothing is to be done.
    """

    name: str
    status: Status
    fact: str
    remedy: str = ""


class FaultError(Exception):
    """What a check finds wrong: the fact and the remedy."""

    def __init__(self, *, fact: str, remedy: str, status: Status = "fail") -> None:
        super().__init__(fact)
        self.fact, self.remedy, self.status = fact, remedy, status


def run_check(name: str, run: Callable[[], str]) -> Check:
    """Run one check: it returns a fact, or raises what is wrong."""
    try:
        return Check(name, "ok", run())
    except FaultError as fault:
        return Check(name, fault.status, fault.fact, fault.remedy)
    except WardroundError as error:
        fact, _, remedy = str(error).partition(": ")
        return Check(name, "fail", fact, remedy)
    except OSError as error:
        return Check(name, "fail", f"not readable ({error.strerror})", "check owner and disk.")
