"""What a hospital allows: ``policy.toml`` of its site folder. What it does not allow is refused."""

import math
from datetime import time
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from wardround.client.policy.approvals import Decision, Digest, approvals_of, read_decisions
from wardround.common.errors import PolicyError, known_names
from wardround.common.files.packages.references import MONAI
from wardround.common.files.validated_toml import read_toml
from wardround.common.study.plans.packs import PACKS
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.registry import NETWORKS, TASKS
from wardround.common.study.sections.fields import Hash, PackageName
from wardround.common.study.sections.heading import Task
from wardround.common.study.study import Study

POLICY_FILE = "policy.toml"
NO_LIMIT = 1e9  # of epsilon, for a simulated site

Epsilon = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Packages = Annotated[
    tuple[
        tuple[PackageName, Hash], ...
    ],  # of a table; a policy is compared and kept by its content
    BeforeValidator(lambda said: tuple(said.items()) if isinstance(said, dict) else said),
    PlainSerializer(dict),
    Field(max_length=1_000),
]


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
        secure_aggregation: "required": a study that does not mask its updates is refused.
        smallest_sum: A study whose server learns sums of fewer sites than this is refused, where it
            masks at all.
        tasks: Tasks that a study may have.
        networks: Networks that a study may train: Wardround's own, and ``monai:Class`` of MONAI.
        packages: Which installed packages a study may name, each with the SHA-256 over its files:
            no code of another one is ever imported. Absent is none.
        smallest_cohort: Fewest training patients with which the site takes part.
        smallest_cell: No count below it leaves, and every count is rounded down to a multiple.
        metrics: How metrics leave. "sums": tables that merge exactly, whose cells may be single
            patients. "values": each metric as a number of three decimals. "none": not at all.
        statistics: Whether a study may be told histograms of the training data before it trains.
            "exact": also sums of covariates that are not rounded, for ComBat. Absent is no: who
            wrote a policy without this key has not thought of them.
        largest_statistics: How many studies are ever told histograms without noise.
        packs: Which packs of evidence a study may be told of its finished model, each a key of
            PACKS in :mod:`wardround.common.study.plans.packs`. Absent is none. A study that asks
            for others is trained, and not told these.
        largest_packs_of_a_study: Of how many runs of one study.
        largest_evaluations_a_day: How many models the site measures a day, for all studies without
            privacy for patients together. Such a measurement has no noise.
        largest_evaluations_of_a_study: How many it measures for one such study, over all its runs.
            A study with privacy has a limit of its own: one answer a round.
        largest_canaries_of_a_study: How many canary rounds of one approved study it answers: each
            tells in a word a stage whether the study would fail here, and nothing else. 0: none.
        monitoring: Whether a server is told, in one bit a period, that the monitoring of a model
            raised an alarm. "noised": as a randomised response. A study that protects its patients
            is told no other. Absent is no.
        monitoring_epsilon: What one such noised word spends.
        largest_monitoring_epsilon: What all of them together may ever spend; then no more is said.
        largest_message_megabytes: What one message may hold, in 10^6 bytes.
        largest_weight: What a received model may hold, in absolute value, in a study that protects
            its patients. Larger ones make rounding decide what a patient contributes. A study may
            ask for less, never for more.
        takes_models: Whether the finished model of a study that was approved here may be fetched.
        training_hours: From when to when it may train, in local time; it may cross midnight.
        largest_training_minutes: What one round may take; then it is stopped, and nothing leaves.
        answer_step_seconds: An answer is sent so long after its instruction, or a multiple of it:
            its time says less of how many patients there are. 0 sends it at once.
        kept_answer_days: How long an answer is kept whose counting the server has not confirmed.
        approved: Digests of the studies that a person of this hospital has read and approved, once
            each, or "any", which a simulated site alone may say. ``approvals.toml`` adds to them.
        rounds_factor: How many rounds one approval of a study without privacy of patients is for,
            over the rounds that the study names: a round that is lost is trained again.
        rejected: Digests that a person of this hospital rejected; that wins over an approval.
        largest_validation_share: What share of its patients a study may set aside for validation,
            where the manifest does not say who is which.
        largest_test_share: The same for testing.
        simulated: Whether this is no hospital: free text may then leave, numbers are not rounded,
            and nothing waits for the disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lifetime_epsilon: Epsilon = 8.0
    lifetime_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    study_epsilon: Epsilon = 8.0
    refused_above_the_cap: Literal["study", "round"] = "study"
    privacy_required: bool = True
    secure_aggregation: Literal["required", "allowed"] = "allowed"
    smallest_sum: Annotated[int, Field(ge=3, le=1024)] = 3
    tasks: tuple[Task, ...] = tuple(TASKS)
    networks: tuple[str, ...] = tuple(NETWORKS)
    packages: Packages = ()
    smallest_cohort: Count = 20
    smallest_cell: Count = 10
    metrics: Literal["sums", "values", "none"] = "values"
    statistics: Literal["no", "yes", "exact"] = "no"
    largest_statistics: Count = 20
    packs: tuple[str, ...] = ()
    largest_packs_of_a_study: Count = 2
    largest_evaluations_a_day: Count = 200
    largest_evaluations_of_a_study: Count = 1000
    largest_canaries_of_a_study: Annotated[int, Field(ge=0)] = 20
    monitoring: Literal["no", "exact", "noised"] = "no"
    monitoring_epsilon: Epsilon = 1.0
    largest_monitoring_epsilon: Epsilon = 8.0
    largest_message_megabytes: Annotated[float, Field(gt=0)] = 1000.0
    largest_weight: Annotated[float, Field(gt=0)] = 1000.0
    takes_models: bool = True
    largest_validation_share: Share = 0.3
    largest_test_share: Share = 0.35
    training_hours: tuple[time, time] | None = None
    largest_training_minutes: Annotated[float, Field(gt=0)] | None = None
    answer_step_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    kept_answer_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    approved: tuple[Digest, ...] | Literal["any"] = ()
    rounds_factor: Annotated[float, Field(ge=1, le=1000)] = 2.0
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
    policy, decisions = _written_policy(folder), read_decisions(folder)
    return _with_decisions(policy, decisions) if decisions else policy


def rounds_of_approval(policy: Policy, study: Study) -> int:
    """Return how many rounds one approval of a study is for.

    Under privacy of patients they are the study's own: it has planned its noise for no more.
    """
    rounds = study.federation.rounds
    if what_leaves(study).noise_added_by == "site":
        return rounds
    return math.floor(rounds * policy.rounds_factor)


def approved_rounds(folder: Path, study: Study) -> int | None:
    """Return how many rounds of a study a site may train, over all runs, attempts and restarts.

    Every approval adds its own; one in ``policy.toml`` counts once. None where a simulated site
    approves any study, as often as it likes.

    Raises:
        PolicyError: There is no policy, or a file is damaged.
    """
    policy = _written_policy(folder)
    if policy.approved == "any":
        return None
    once = rounds_of_approval(policy, study)
    approvals = approvals_of(folder, study.digest)
    listed = once if study.digest in policy.approved else 0
    return listed + sum(decision.rounds or once for decision in approvals)


def _written_policy(folder: Path) -> Policy:
    absent = (
        f"{folder} has no {POLICY_FILE}, so nothing is allowed: "
        f"write a cautious one with 'wardround site policy new {folder}' and edit it."
    )
    return read_toml(folder / POLICY_FILE, Policy, PolicyError, absent, cached=True)


def is_simulated(folder: Path) -> bool:
    """Return whether a site folder says that it is no hospital's; one without a policy does not."""
    try:
        return open_policy(folder).simulated
    except PolicyError:
        return False


def kept_answer_days(folder: Path) -> float:
    """Return how long the site keeps answers; as by default where its policy cannot be read."""
    try:
        return open_policy(folder).kept_answer_days
    except PolicyError:
        return Policy().kept_answer_days


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
    broken += [
        f"networks lists {name}, which is a package's: list the package in [packages], with its "
        "hash, and take it out of networks."
        for name in policy.networks
        if name in NETWORKS and name not in tuple(NETWORKS) and not name.startswith(MONAI)
    ]
    broken += [known_names("pack", name, PACKS) for name in policy.packs if name not in PACKS]
    if policy.packs and policy.metrics == "none":
        broken.append(
            "metrics = 'none' lets no measurement out, and packs are measurements: set packs = []."
        )
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
    statistics="exact",
    packs=tuple(PACKS),
    largest_message_megabytes=100_000,
    largest_weight=NO_LIMIT,
    largest_validation_share=1.0,
    largest_test_share=1.0,
    answer_step_seconds=0,
    approved="any",
    simulated=True,
)
