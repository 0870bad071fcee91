"""Who is charged for what: a study's run on a data set, a reply of it, its reservation."""

from dataclasses import dataclass

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.entries import Admitted, Reserved
from wardround.common.privacy.accounting import Spend

TRAIN = "train"  # the part of the patients that a study trains on
MAIN_DATASET = "main"  # a site folder holds one manifest, and so one data set


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run of a study on one part of a data set.

    Attributes:
        study: The study's digest.
        run: The run's name, from the server's orders.
        snapshot: The patients of the part, as :func:`~.ledger_snapshot.snapshot_of` names them.
        dataset: The site's own name of the data set, never a study's.
        part: Whom it is about: "train", "validation" or "test". No patient is in two.
    """

    study: str
    run: str
    snapshot: str
    dataset: str = MAIN_DATASET
    part: str = TRAIN


@dataclass(frozen=True, slots=True)
class Charge:
    """What one reply to an instruction spends."""

    assignment: Assignment
    round: int
    attempt: int
    spend: Spend


@dataclass(frozen=True, slots=True)
class Reservation:
    """A charge that stands in the ledger.

    Attributes:
        number: The number of its entry.
    """

    number: int
    charge: Charge


def to_fact(charge: Charge) -> Reserved:
    """Return a charge as an entry says it."""
    assignment, spend = charge.assignment, charge.spend
    return Reserved(
        study=assignment.study,
        run=assignment.run,
        dataset=assignment.dataset,
        part=assignment.part,
        snapshot=assignment.snapshot,
        round=charge.round,
        attempt=charge.attempt,
        sampling_rate=float(spend.sampling_rate),
        noise_multiplier=float(spend.noise_multiplier),
        steps=spend.steps,
    )


def to_charge(fact: Reserved) -> Charge:
    """Return the charge that an entry says."""
    assignment = Assignment(fact.study, fact.run, fact.snapshot, fact.dataset, fact.part)
    spend = Spend(fact.sampling_rate, fact.noise_multiplier, fact.steps)
    return Charge(assignment, fact.round, fact.attempt, spend)


def to_admission(assignment: Assignment, planned: Spend, clip_norm: float, caps: Caps) -> Admitted:
    """Return an admission as an entry says it."""
    return Admitted(
        study=assignment.study,
        run=assignment.run,
        dataset=assignment.dataset,
        part=assignment.part,
        snapshot=assignment.snapshot,
        sampling_rate=float(planned.sampling_rate),
        noise_multiplier=float(planned.noise_multiplier),
        steps=planned.steps,
        clip_norm=float(clip_norm),
        lifetime_epsilon=float(caps.lifetime_epsilon),
        lifetime_delta=float(caps.lifetime_delta),
        study_epsilon=float(caps.study_epsilon),
    )
