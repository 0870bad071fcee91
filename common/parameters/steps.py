"""How far the steps of a site count, in the mean of FedNova."""

from wardround.common.errors import RunError


def effective_steps(updates: int, momentum: float) -> float:
    """Return ``|a|``, the sum of what each gradient contributes (Wang et al. 2020, section 4.2).

    Raises:
        RunError: The site made no step, so it has no direction.
    """
    if updates < 1:
        msg = f"the site made {updates} steps: its change has no direction."
        raise RunError(msg)
    if momentum == 0:
        return float(updates)
    return (updates - momentum * (1 - momentum**updates) / (1 - momentum)) / (1 - momentum)
