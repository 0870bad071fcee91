"""What an operator asks and is told of a site that leaves a run; no torch is imported for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WithdrawalAsked:
    """Which site leaves a run, or has patients who do.

    Attributes:
        patients: Whether not the site leaves, but patients of it.
    """

    run: str
    site: str
    patients: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawalPlanned:
    """What a run without a site repeats.

    Attributes:
        site: Which site leaves, or has patients who do.
        without: What leaves: the ``site``, or ``patients`` of it.
        first_round: The first round that has a number of the site in it.
        after_round: The last round that stays; 0 where training begins anew.
        rounds: Of the study.
        done: Rounds that the run has committed.
        kept: The rounds whose commits the server has of the run.
        seconds: What the repeat takes, as long as the run's rounds since took; None where none was.
        is_exact: Whether its model is to the bit that of a run without the site.
        why: Under which conditions it is exact, or why not; and why not from a later commit.
        first_rounds: Of the other sites that came later, when; they come so again.
        others: Who takes part in the repeat, as far as the history tells.
        asked: Whether the site has asked for it.
        run: The run that repeats; empty where none was begun.
        digest: Of its study; empty of a plan.
        words: The plan in sentences.
    """

    site: str
    without: str
    first_round: int
    after_round: int
    rounds: int
    done: int
    kept: tuple[int, ...]
    seconds: float | None
    is_exact: bool
    why: tuple[str, ...]
    first_rounds: dict[str, int]
    others: tuple[str, ...]
    asked: bool
    run: str
    digest: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WithdrawalWaiting:
    """What a site asked to leave.

    Attributes:
        site: Which site leaves, or has patients who do.
        without: Whether the ``site`` leaves, or ``patients`` of it.
        time: When it asked, in seconds since 1970.
        study: The study's digest.
        run: The newest run of the study; empty where there is none.
    """

    site: str
    without: str
    time: float
    study: str
    run: str


@dataclass(frozen=True, slots=True)
class Withdrawals:
    """What sites asked and no operator has begun yet, the oldest first."""

    waiting: tuple[WithdrawalWaiting, ...]
