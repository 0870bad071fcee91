"""What a hospital allows: ``policy.toml`` of its site folder. What it does not allow is refused."""

from datetime import time
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wardround.client.policy.approvals import Decision, Digest, read_decisions
from wardround.common.errors import PolicyError, known_names
from wardround.common.files.validated_toml import read_toml
from wardround.common.study.registry import NETWORKS, TASKS
from wardround.common.study.sections import Task

POLICY_FILE = "policy.toml"
NO_LIMIT = 1e9  # of epsilon, for a simulated site

Epsilon = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Policy(BaseModel):
    """The content of ``policy.toml``; an unknown key is refused.

    Attributes:
        lifetime_epsilon: What all studies together may ever spend on a patient of this site.
        lifetime_delta: The delta at which that is counted.
        study_epsilon: What one study may plan to spend.
        refused_above_the_cap: What is refused where a study plans more than these allow: "study",
            the whole of it before its first round, or "round", those that would pass a cap, so
            that the site takes part until then.
        privacy_required: Whether a study must be differentially private for each patient.
        tasks: Tasks that a study may have.
        networks: Networks that a study may train.
        smallest_cohort: Fewest training patients with which the site takes part.
        smallest_cell: No count below it leaves, and every count is rounded down to a multiple.
        metrics: How metrics leave. "sums": tables that merge exactly, whose cells may be single
            patients. "values": each metric as a number of three decimals. "none": not at all.
        largest_evaluations_a_day: How many models the site measures a day, for all studies without
            privacy for patients together. Such a measurement has no noise.
        largest_evaluations_of_a_study: How many it measures for one such study, over all its runs.
            A study with privacy has a limit of its own: one answer a round.
        largest_message_megabytes: What one message may hold, in 10^6 bytes.
        largest_weight: What a received model may hold, in absolute value, in a study that protects
            its patients. Larger ones make rounding decide what a patient contributes.
        training_hours: From when to when it may train, in local time; it may cross midnight.
        largest_training_minutes: What one round may take; then it is stopped, and nothing leaves.
        approved: Digests of the studies that a person of this hospital has read and approved, or
            "any", which a simulated site alone may say. ``approvals.toml`` adds to them.
        rejected: Digests that a person of this hospital rejected; that wins over an approval.
        simulated: Whether this is no hospital: free text may then leave, numbers are not rounded,
            and nothing waits for the disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lifetime_epsilon: Epsilon = 8.0
    lifetime_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    study_epsilon: Epsilon = 8.0
    refused_above_the_cap: Literal["study", "round"] = "study"
    privacy_required: bool = True
    tasks: tuple[Task, ...] = tuple(TASKS)
    networks: tuple[str, ...] = tuple(NETWORKS)
    smallest_cohort: Count = 20
    smallest_cell: Count = 10
    metrics: Literal["sums", "values", "none"] = "values"
    largest_evaluations_a_day: Count = 200
    largest_evaluations_of_a_study: Count = 1000
    largest_message_megabytes: Annotated[float, Field(gt=0)] = 1000.0
    largest_weight: Annotated[float, Field(gt=0)] = 1000.0
    training_hours: tuple[time, time] | None = None
    largest_training_minutes: Annotated[float, Field(gt=0)] | None = None
    approved: tuple[Digest, ...] | Literal["any"] = ()
    rejected: tuple[Digest, ...] = ()
    simulated: bool = False

    @model_validator(mode="after")
    def _obey_rules(self) -> "Policy":
        if broken := _broken_rules(self):
            raise ValueError(" ".join(broken))
        return self

    @property
    def largest_message_bytes(self) -> int:
        """What one message may hold."""
        return int(self.largest_message_megabytes * 1_000_000)


def open_policy(folder: Path) -> Policy:
    """Read the policy of a site folder, as it is now, with what was decided beside it.

    Raises:
        PolicyError: There is none, or it says something unknown: then nothing is allowed.
    """
    absent = (
        f"{folder} has no {POLICY_FILE}, so nothing is allowed: "
        f"write a cautious one with 'wardround site policy new {folder}' and edit it."
    )
    policy = read_toml(folder / POLICY_FILE, Policy, PolicyError, absent, cached=True)
    decisions = read_decisions(folder)
    return _with_decisions(policy, decisions) if decisions else policy


@lru_cache(maxsize=64)
def _with_decisions(policy: Policy, decisions: tuple[Decision, ...]) -> Policy:
    """Return a policy with the last decision about each digest; the same for the same."""
    last = {decision.digest: decision.verdict for decision in decisions}
    approved = tuple(digest for digest, verdict in last.items() if verdict == "approved")
    rejected = tuple(digest for digest, verdict in last.items() if verdict == "rejected")
    listed = policy.approved if policy.approved == "any" else (*policy.approved, *approved)
    return policy.model_copy(update={"approved": listed, "rejected": (*policy.rejected, *rejected)})


def _broken_rules(policy: Policy) -> list[str]:
    broken = [
        known_names("network", name, NETWORKS) for name in policy.networks if name not in NETWORKS
    ]
    if policy.approved == "any" and not policy.simulated:
        broken.append(
            "approved = 'any' is for simulated sites: list the digests of the studies that were "
            "read and approved ('wardround study check STUDY' prints a study's)."
        )
    if policy.metrics == "sums" and policy.smallest_cell > 1:
        broken.append(
            f"metrics = 'sums' sends tables with cells of single patients, and smallest_cell is "
            f"{policy.smallest_cell}: set metrics = 'values'."
        )
    if policy.smallest_cohort < policy.smallest_cell:
        broken.append(
            f"smallest_cohort = {policy.smallest_cohort} is less than smallest_cell = "
            f"{policy.smallest_cell}: a cohort is a count too, so raise it."
        )
    return broken


# Of a simulated site: it allows everything, and its folder says so.
OPEN_POLICY = Policy(
    lifetime_epsilon=NO_LIMIT,
    study_epsilon=NO_LIMIT,
    privacy_required=False,
    smallest_cohort=1,
    smallest_cell=1,
    metrics="sums",
    largest_message_megabytes=100_000,
    largest_weight=NO_LIMIT,
    approved="any",
    simulated=True,
)
