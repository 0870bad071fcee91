"""Exactly what a site's message may hold, for a study and a policy; whatever is not here stays.

And what an instruction may hold: it is looked at before anything is charged or written for it.

Under patient-level privacy an update holds the noised parameters and constants that anybody can
read off the study: no count, no loss, no metric, no time.
"""

import wardround
from wardround.client.data.cohort import Cohort
from wardround.client.egress.guard import (
    Count,
    Empty,
    Exactly,
    FreeText,
    MessageSchema,
    Number,
    OneOf,
    Rule,
)
from wardround.client.policy.policy import Policy
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.training.schedule import steps_a_round
from wardround.common.errors import WardroundError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import REFUSAL_CODES
from wardround.common.metrics.records import EXAMINATIONS, array_schema, noised_schema
from wardround.common.metrics.sums import metrics_of_task, sums_type
from wardround.common.models.sharing import CONTROL, auxiliary_schema
from wardround.common.parameters.compression import CompressionOptions, compressed_schema
from wardround.common.parameters.schema import ArraySpec, Schema, check_schema, schema
from wardround.common.runtime.printable import printable
from wardround.common.study.plans.patient_privacy import steps_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.registry import METRICS

DECIMALS = 3  # of a metric and of a loss that leave a hospital
LARGEST_VALUE = 1e3  # of a loss or a distance in mm; a larger one is not said
LONGEST_SECONDS = 1e6
_BOUNDED = Number(DECIMALS, 0.0, 1.0)
_UNBOUNDED = Number(DECIMALS, -LARGEST_VALUE, LARGEST_VALUE)


class InstructionError(WardroundError):
    """An instruction asks for what its study does not."""


class SiteSchemas:
    """The schemas of all messages of one site in one study.

    Args:
        session: Knows the study, its network, and how many examinations there are.
        policy: What the hospital allows.
    """

    def __init__(self, session: SiteSession, policy: Policy) -> None:
        context = session.context
        self._name = session.site.name
        self._study, self._policy = context.study, policy
        self._cohorts = session.cohorts
        self._fingerprint = context.fingerprint
        self._leaves = what_leaves(context.study)
        self._arrays = update_arrays(context)
        self._shared, self._whole, self._extras = received_arrays(context)
        self._tables = {s: array_schema(context.study, s) for s in (False, True)}
        self._may_lack = _MAY_LACK.union(
            (f"metrics/{name}" for name in sums_type(context.study).OPTIONAL),
            (f"values/{name}" for name in metrics_of_task(context.study)),
        )

    def check_instruction(self, instruction: Instruction, trains: bool) -> None:
        """Check that an instruction asks for what the study does, and brings the study's model.

        Args:
            trains: Whether it asks to train; if not, to evaluate.

        Raises:
            InstructionError: It is for another study, or for a round that the study has not.
            ModelError: Its arrays are not those of the study.
        """
        digest, rounds = self._study.digest, self._study.federation.rounds
        if instruction.digest != digest:
            msg = (
                f"the instruction is for study {printable(instruction.digest, 16)}, this site "
                f"works on {digest[:12]}: submit the study again."
            )
            raise InstructionError(msg)
        if self._study.statistics.ask:
            msg = (
                "the study asks for statistics alone, so nothing is trained or measured for it: "
                "submit the study that was planned from them."
            )
            raise InstructionError(msg)
        numbers = instruction.round, instruction.kept_round, instruction.counted_round
        if max(numbers) > rounds or instruction.round < int(trains):
            msg = (
                f"the instruction is for round {instruction.round}, keeps round "
                f"{instruction.kept_round} and counts round {instruction.counted_round}, and the "
                f"study has rounds 1 to {rounds}: ask for one of them."
            )
            raise InstructionError(msg)
        # A model may be judged as a whole: one that was trained without others has no other part.
        is_whole = not trains and len(instruction.parameters) == len(self._whole)
        check_schema(instruction.parameters, self._whole if is_whole else self._shared)
        check_schema(instruction.auxiliary, self._extras if trains else ())

    def site_info(self, monitoring: str = "") -> MessageSchema:
        """Return what a site info may hold.

        Args:
            monitoring: The word on its last period that was written down; "" for none.
        """
        notes: Rule = FreeText() if self._policy.simulated and self._leaves.notes else Empty()
        header: dict[str, Rule] = {
            "site": Exactly(self._name),
            "wardround": Exactly(wardround.__version__),
            "digest": Exactly(self._study.digest),
            EXAMINATIONS: self._examinations,
            "notes": notes,
        }
        if self._fingerprint:
            header["base"] = Exactly(self._fingerprint)
        if monitoring:
            header["monitoring"] = Exactly(monitoring)
        return MessageSchema(settings={"header": header})

    def update(self, instruction: Instruction, ledger: tuple[str, ...] = ()) -> MessageSchema:
        """Return what the reply to an instruction to train may hold.

        Args:
            ledger: The hashes of the entries of the site's privacy ledger that were charged for
                this server.
        """
        facts: dict[str, Rule] = {EXAMINATIONS: self._examinations, "updates": self._updates}
        header = self._header(instruction)
        numbers, arrays = {"facts": facts}, dict(self._arrays)
        if self._leaves.noise_added_by == "site":
            header["ledger"] = Count(most=len(ledger))
            header["ledger-head"] = OneOf(ledger)
        if self._leaves.times:
            facts["seconds"] = self._seconds
        if self._leaves.losses and self._policy.metrics != "none":
            facts["training-loss"] = Number(None) if self._policy.simulated else _UNBOUNDED
        if self._leaves.round_metrics and not self._leaves.noised_metrics:
            numbers.update(self._values(self._cohorts.validation))
            arrays.update(self._sums(surfaces=False))
        return MessageSchema({"header": header}, numbers, arrays, self._may_lack)

    def unmasked_update(self, instruction: Instruction) -> MessageSchema:
        """Return what an update may hold before it is masked: the study's arrays, and no fact."""
        facts: dict[str, Rule] = {EXAMINATIONS: Exactly(1), "updates": Exactly(0)}
        header = self._header(instruction)
        return MessageSchema({"header": header}, {"facts": facts}, dict(self._arrays))

    def evaluation(self, instruction: Instruction) -> MessageSchema:
        """Return what the reply to an instruction to evaluate may hold."""
        header: dict[str, Rule] = {**self._header(instruction), "attempt": Exactly(0)}
        cohort = self._cohorts.test if instruction.split == "test" else self._cohorts.validation
        facts: dict[str, Rule] = {"seconds": self._seconds} if self._leaves.times else {}
        return MessageSchema(
            {"header": header},
            {"facts": facts, **self._values(cohort)},
            self._sums(instruction.surfaces),
            self._may_lack,
        )

    def noised_evaluation(self, instruction: Instruction) -> MessageSchema:
        """Return what the reply to an instruction to evaluate may hold in a private study."""
        header: dict[str, Rule] = {**self._header(instruction), "attempt": Exactly(0)}
        noised = {"noised": noised_schema(self._study)}
        return MessageSchema({"header": header}, {"facts": {}}, noised)

    def _header(self, instruction: Instruction) -> dict[str, Rule]:
        return {
            "site": Exactly(self._name),
            "digest": Exactly(self._study.digest),
            "run": Exactly(instruction.run),
            "round": Exactly(instruction.round),
            "attempt": Exactly(instruction.attempt),
        }

    @property
    def _examinations(self) -> Rule:
        if not self._leaves.counts:
            return Exactly(1)
        return Exactly(rounded_down(len(self._cohorts.train), self._policy.smallest_cell))

    @property
    def _updates(self) -> Rule:
        if not self._leaves.counts:
            return Exactly(steps_of(self._study))
        if self._policy.simulated:
            return Count()
        count = rounded_down(len(self._cohorts.train), self._policy.smallest_cell)
        return Exactly(steps_a_round(count, self._study.training))

    @property
    def _seconds(self) -> Rule:
        return Number(None) if self._policy.simulated else Number(-1, 0.0, LONGEST_SECONDS)

    def _sums(self, surfaces: bool) -> dict[str, Schema]:
        return {"metrics": self._tables[surfaces]} if self._policy.metrics == "sums" else {}

    def _values(self, cohort: Cohort) -> dict[str, dict[str, Rule]]:
        if self._policy.metrics != "values":
            return {}
        count = rounded_down(len(cohort), self._policy.smallest_cell)
        rules: dict[str, Rule] = {EXAMINATIONS: Exactly(count)}
        for name in metrics_of_task(self._study):
            entry = METRICS[name]
            rules[name] = _UNBOUNDED if name == "loss" or not entry.in_unit_interval else _BOUNDED
        return {"values": rules}


def rounded_down(count: int, multiple: int) -> int:
    """Return the multiple that is not above a count."""
    return count // multiple * multiple


def refusal_schema(name: str, explains_refusals: bool) -> MessageSchema:
    """Return what a refusal may hold.

    Args:
        explains_refusals: Whether it may give its reason in a sentence.
    """
    reason: Rule = FreeText() if explains_refusals else Exactly("")
    fields: dict[str, Rule] = {
        "site": Exactly(name),
        "code": OneOf(REFUSAL_CODES),
        "reason": reason,
    }
    return MessageSchema(settings={"refusal": fields})


def update_arrays(context: ModelContext) -> dict[str, Schema]:
    """Return the arrays of an update, as the study's network, strategy and compression imply."""
    study, layout = context.study, context.layout
    whole, names = context.network.state_dict(), layout.shared
    unnoised = what_leaves(study).unnoised_arrays
    if not unnoised:  # a running mean is of the patients, and has no noise
        names = tuple(name for name in names if name in layout.trainable or name in layout.frozen)
    shared = {name: whole[name] for name in names}
    options = CompressionOptions(kept_fraction=study.federation.kept_fraction)
    kind, model = study.federation.compression, schema(shared)
    arrays = {"model": model if kind == "none" else compressed_schema(model, kind, options)}
    auxiliary = auxiliary_schema(context.plan, layout, shared)
    if not unnoised:
        # A control variate follows from noised gradients and from what the site was sent, also
        # where a reply was lost: tests/unit/client/privacy/test_post_processing.py.
        auxiliary = tuple(spec for spec in auxiliary if spec.name.startswith(CONTROL))
    if auxiliary:
        arrays["auxiliary"] = auxiliary
    return arrays


def received_arrays(context: ModelContext) -> tuple[Schema, Schema, Schema]:
    """Return the arrays that a site is sent: what is shared, a whole model, and what is beside."""
    layout, whole = context.layout, schema(context.network)
    shared = tuple(spec for spec in whole if spec.name in set(layout.shared))
    variates = (
        ArraySpec(CONTROL + spec.name, spec.shape, spec.dtype)
        for spec in shared
        if context.plan.objective == "control-variates" and spec.name in layout.trainable
    )
    return shared, whole, tuple(variates)


def update_bytes(context: ModelContext) -> int:
    """Return the size of the arrays of an update."""
    return sum(spec.byte_count for arrays in update_arrays(context).values() for spec in arrays)


_MAY_LACK = frozenset(
    {
        "header/ledger",
        "header/ledger-head",
        "metrics",
        "values",
        "facts/seconds",
        "facts/training-loss",
    }
)
