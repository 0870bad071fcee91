"""What patient-level privacy does in each step and measurement of a study, and what it costs.

A plan follows from the study alone. What a site holds has no part in it, so that neither the
noise nor the number of steps tells how many patients a site has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wardround.common.errors import StudyError
from wardround.common.privacy.accounting import Spend, epsilon_of, noise_for
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.study import Study

MeasuredPart = Literal["validation", "test"]
MEASURED_PARTS: tuple[MeasuredPart, ...] = ("validation", "test")
DEFAULT_EPSILON = 8.0  # where a study gives neither epsilon nor a noise multiplier
USUAL_EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
USUAL_PATIENTS = (100, 300, 1000, 3000, 10_000)


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Sampling, clipping, noise and accounting of patient-level DP-SGD (Abadi et al. 2016).

    In each step every patient takes part with probability ``sampling_rate``. A patient's gradient,
    over at most ``examples_per_patient`` of its examples, is clipped to ``clip_norm``; to the sum
    over the patients comes noise of ``noise_multiplier * clip_norm`` a coordinate, and the result
    is divided by ``expected_patients``.

    Attributes:
        sampling_rate: In (0, 1].
        expected_patients: Patients of a step, as the study expects them.
        clip_norm: Largest norm of what a patient adds to a step.
        noise_multiplier: Standard deviation of the noise over ``clip_norm``.
        steps: Steps a round.
        rounds: Rounds of the study.
        delta: In (0, 1).
        examples_per_patient: Most examples of a patient in a step.
        distributed: Whether the noise is that of the sum of all sites, each of which adds a share.
    """

    sampling_rate: float
    expected_patients: int
    clip_norm: float
    noise_multiplier: float
    steps: int
    rounds: int
    delta: float
    examples_per_patient: int
    distributed: bool = False

    def spend(self, rounds: int = 1) -> Spend:
        """Return what so many rounds spend."""
        return Spend(self.sampling_rate, self.noise_multiplier, self.steps * rounds)

    @property
    def planned(self) -> Spend:
        """What all rounds of the study spend."""
        return self.spend(self.rounds)

    @property
    def epsilon(self) -> float:
        """Epsilon of all rounds, at the plan's delta."""
        return epsilon_of([self.planned], self.delta)

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on each number of a step's mean gradient."""
        return self.noise_multiplier * self.clip_norm / self.expected_patients

    def relative_noise(self, patients: int, parameters: int) -> float:
        """Return the noise of a step over the largest signal of a site: ``sigma sqrt(d) / (q n)``.

        The noise has the norm ``sigma C sqrt(d)``. The clipped gradients of the ``q n`` patients
        that a step expects have at most the norm ``q n C``, reached when all agree. Over T steps in
        one direction the ratio falls with ``sqrt(T)``, over K equal sites with ``sqrt(K)``.

        Args:
            patients: Training patients of the site, n.
            parameters: Trained numbers of the network, d.
        """
        expected = self.sampling_rate * patients
        return self.noise_multiplier * math.sqrt(parameters) / expected


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Noise and accounting of what is measured on patients who are not trained on.

    Every patient adds a vector of norm at most 1 to an answer, and every patient of the part is in
    every answer: the Gaussian mechanism without sampling. To each number of the sum comes noise of
    ``noise_multiplier``.

    Attributes:
        part: Whose answers they are; those of the training patients are statistics to plan from.
        answers: Most answers of the study, over all its runs: for validation one a round and one
            for the first model, or one in all where the last model is kept; for test one.
        noise_multiplier: Standard deviation of the noise on each number.
        delta: In (0, 1).
    """

    part: MeasuredPart | Literal["train"]
    answers: int
    noise_multiplier: float
    delta: float

    def spend(self, answers: int = 1) -> Spend:
        """Return what so many answers spend."""
        return Spend(1.0, self.noise_multiplier, answers)

    @property
    def planned(self) -> Spend:
        """What all answers spend."""
        return self.spend(self.answers)

    @property
    def epsilon(self) -> float:
        """Epsilon of all answers, at the plan's delta."""
        return epsilon_of([self.planned], self.delta)


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What one epsilon costs a study.

    Attributes:
        epsilon: Of all rounds.
        noise_multiplier: With which they cost it.
        relative_noise: :meth:`PrivacyPlan.relative_noise` of a step, a number for each size of
            site that was asked for.
    """

    epsilon: float
    noise_multiplier: float
    relative_noise: tuple[float, ...]


def trade_offs(
    plan: PrivacyPlan,
    parameters: int,
    patients: Sequence[int] = USUAL_PATIENTS,
    epsilons: Sequence[float] = USUAL_EPSILONS,
) -> tuple[TradeOff, ...]:
    """Return what other budgets would cost the same study, with the plan's own among them.

    Args:
        parameters: Trained numbers of the network.
        patients: Training patients of a site, each its own column.
        epsilons: In any order; one within 1 % of the plan's own gives way to it.
    """
    others = [e for e in epsilons if abs(e - plan.epsilon) > 0.01 * plan.epsilon]
    steps = plan.planned.steps
    plans = [plan] + [
        replace(plan, noise_multiplier=noise_for(e, plan.delta, plan.sampling_rate, steps))
        for e in others
    ]
    rows = (
        TradeOff(
            one.epsilon,
            one.noise_multiplier,
            tuple(one.relative_noise(count, parameters) for count in patients),
        )
        for one in plans
    )
    return tuple(sorted(rows, key=lambda row: row.epsilon))


def plan_privacy(study: Study) -> PrivacyPlan:
    """Return the plan of a study whose ``privacy.mode`` is "patient".

    Solving for the noise takes seconds the first time in a process and nothing after.

    Raises:
        StudyError: The study promises its patients nothing.
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    privacy = study.privacy
    if privacy.mode != "patient":
        msg = (
            f"privacy.mode = {privacy.mode!r} has no plan for patients: "
            "set privacy.mode = 'patient'."
        )
        raise StudyError(msg)
    steps, rounds = steps_of(study), study.federation.rounds
    noise = privacy.noise_multiplier
    if noise is None:
        epsilon = DEFAULT_EPSILON if privacy.epsilon is None else privacy.epsilon
        noise = noise_for(epsilon, privacy.delta, privacy.sampling_rate, steps * rounds)
        if privacy.noise == "distributed":
            noise = _agreed(noise)
    return PrivacyPlan(
        sampling_rate=privacy.sampling_rate,
        expected_patients=privacy.expected_patients or study.training.batch_size,
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise,
        steps=steps,
        rounds=rounds,
        delta=privacy.delta,
        examples_per_patient=privacy.examples_per_patient,
        distributed=privacy.noise == "distributed",
    )


def plan_charges(study: Study) -> PrivacyPlan:
    """Return what the rounds of a study with privacy are charged to a patient.

    Where the unit is a whole site and the sites add the noise, a patient who is added or removed
    may change the site's update from any to any other of the clip norm: by twice what is promised
    to the site.

    Raises:
        StudyError: The study promises nothing that a site pays for.
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    privacy = study.privacy
    if privacy.mode == "site" and study.privacy.charges_patients and privacy.noise_multiplier:
        return PrivacyPlan(
            sampling_rate=1.0,
            expected_patients=1,
            clip_norm=privacy.clip_norm,
            noise_multiplier=privacy.noise_multiplier / 2,
            steps=1,
            rounds=study.federation.rounds,
            delta=privacy.delta,
            examples_per_patient=privacy.examples_per_patient,
        )
    return plan_privacy(study)


def _agreed(noise: float) -> float:
    """Return a noise multiplier with four digits, rounded up.

    The sites' grid follows from it and they must have the same, also those whose machine solves
    for it with other digits at the end.
    """
    digits = float(f"{noise:.4g}")
    return digits if digits >= noise else float(f"{noise * 1.0005:.4g}")


def plan_evaluation(study: Study, part: MeasuredPart) -> EvaluationPlan | None:
    """Return what measurements on one part of the patients spend; None where there are none.

    Solving for the noise takes a second the first time in a process and nothing after.

    Raises:
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    if not is_measured(study, part):
        return None
    epsilon, delta = asked_epsilon(study.privacy, part), study.privacy.delta
    if epsilon is None:
        plan = plan_privacy(study) if study.privacy.noise_multiplier is not None else None
        epsilon = plan.epsilon if plan else study.privacy.epsilon or DEFAULT_EPSILON
    each_round = part == "validation" and measures_each_round(study)
    answers = study.federation.rounds + 1 if each_round else 1
    return EvaluationPlan(part, answers, noise_for(epsilon, delta, 1.0, answers), delta)


def evaluation_plans(study: Study) -> tuple[EvaluationPlan, ...]:
    """Return the plans of all parts that a private study measures."""
    plans = (plan_evaluation(study, part) for part in MEASURED_PARTS)
    return tuple(plan for plan in plans if plan is not None)


def is_measured(study: Study, part: MeasuredPart) -> bool:
    """Return whether a study with privacy for patients lets anything be told of a part."""
    if study.federation.secure_aggregation:
        return False  # an answer of one site would not be in a sum
    share = {
        "validation": study.evaluation.validation_fraction,
        "test": study.evaluation.test_fraction,
    }
    return share[part] > 0 and asked_epsilon(study.privacy, part) != 0


def measures_each_round(study: Study) -> bool:
    """Return whether a private study has validation patients measured in each round.

    Not where the last model is kept in any case: one answer has less noise than many. Nor where the
    server waits for nobody, as it would have to for a measurement.
    """
    is_chosen = study.evaluation.keep == "best" and study.federation.buffer_size is None
    return is_chosen and is_measured(study, "validation")


def asked_epsilon(privacy: PrivacySection, part: MeasuredPart) -> float | None:
    """Return the epsilon that a study gives the measurements on a part, None for its own."""
    return {"validation": privacy.validation_epsilon, "test": privacy.test_epsilon}[part]


def steps_of(study: Study) -> int:
    """Return the private steps of a round: those of the study, or epochs of ``1 / q`` steps."""
    training = study.training
    if training.local_steps is not None:
        return training.local_steps
    return (training.local_epochs or 1) * max(1, round(1 / study.privacy.sampling_rate))


def drawn_and_expected(study: Study, patients: int) -> tuple[float, int] | None:
    """Return what a private step draws on average and what it divides by, if that is far too many.

    Args:
        patients: Training patients of a site.

    Returns:
        None where the step is at least half as long as it should be, or the study is not private.
    """
    if study.privacy.mode != "patient":
        return None
    expected = study.privacy.expected_patients or study.training.batch_size
    drawn = patients * study.privacy.sampling_rate
    return (drawn, expected) if 0 < 2 * drawn < expected else None
