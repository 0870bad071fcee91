"""Noise that lies in a sum, in words: by what means, whom it protects from, and what it needs."""

from collections.abc import Iterator
from textwrap import wrap

from wardround.common.study.explain.patient_privacy import rounded_up
from wardround.common.study.plans.distributed_noise import SHARE_BITS, NoiseShares
from wardround.common.study.plans.observers import Comparison

_NOT_POSSIBLE = "-"


def share_words(shares: NoiseShares) -> Iterator[str]:
    """Yield how the noise comes into the sum, and what that needs."""
    unit = "patients' gradients" if shares.unit == "patient" else "change of the network"
    yield (
        f"to each number of its {unit}, as a whole number, each hospital adds a share of noise, a "
        f"discrete Gaussian of standard deviation 2^{SHARE_BITS} units of {shares.step:.3g}, "
        f"before it is masked; the shares of {shares.honest} hospitals together have the noise "
        f"multiplier {shares.noise_multiplier:.4g};"
    )
    yield (
        f"of at least {shares.sites} hospitals at least {shares.survivors} are in a sum, by the "
        f"masks' own rule, and {shares.colluding} of those may help the server and tell it their "
        "shares: what is promised holds against all of these together. With more helpers there is "
        "less noise, and no promise;"
    )
    yield (
        "that the noise is discrete, and many shares instead of one, costs at most "
        f"{shares.gap:.1g} of epsilon and 1e-30 of delta beside this;"
    )


def comparison_words(comparison: Comparison) -> str:
    """Return who learns how much, with both kinds of noise, as a table of text."""
    rows = comparison.observers
    width = max(len(row.name) for row in rows) + 2
    head = f"  {'epsilon against':<{width}}{'local noise':>14}{'distributed':>14}"
    lines = [head]
    for row in rows:
        lines.append(f"  {row.name:<{width}}{_cell(row.local):>14}{_cell(row.distributed):>14}")
    return "\n".join([*lines, "", *wrap(_sense(comparison), 96)])


def _sense(comparison: Comparison) -> str:
    local, distributed = comparison.noise_of_local, comparison.noise_of_distributed
    if distributed is None:
        return (
            "Distributed noise needs one plain step a round (training.local_steps = 1, optimiser "
            "'sgd'), masks and federation.minimum_sites of 3 or more: privacy.noise = "
            "'distributed'."
        )
    noise = (
        f"With distributed noise each number of the mean has noise of {distributed:.3g} clip norms"
    )
    if local is None:
        return f"{noise}."
    return (
        f"{noise}, with local noise {local:.3g}: {local / distributed:.3g} times as much. Both "
        "have the same epsilon against the server that the study promises."
    )


def _cell(value: float | None) -> str:
    return _NOT_POSSIBLE if value is None else rounded_up(value)
