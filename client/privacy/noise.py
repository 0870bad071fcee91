"""The Gaussian mechanism on a step's sum."""

from wardround.common.parameters.schema import Parameters
from wardround.common.privacy.gaussian_mechanism import noised
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan


def noised_mean(sums: Parameters, plan: PrivacyPlan, randomness: Randomness) -> Parameters:
    """Return ``(sum + N(0, (sigma C)^2)) / B`` (Abadi et al. 2016, algorithm 1).

    ``sigma``, ``C`` and the expected patients ``B`` come from the plan; how many patients were
    drawn is not asked.

    How the noise is drawn and rounded: :mod:`wardround.common.privacy.gaussian_mechanism`.

    Args:
        sums: One sum of clipped contributions a parameter, float32 on any device; not changed.
        plan: Says the noise.
        randomness: Where the noise comes from.

    Returns:
        Float32 on the device of each sum.
    """
    deviation = plan.noise_multiplier * plan.clip_norm
    return {
        name: noised(value, deviation, randomness).div_(plan.expected_patients).float()
        for name, value in sums.items()
    }
