"""What masks change for a hospital: what leaves, and what is not promised, in plain language."""

from collections.abc import Iterator
from math import comb

from wardround.common.privacy.secure_aggregation.context import MOST_ATTEMPTS, least_threshold
from wardround.common.study.plans.masking import MaskingPlan

# What a combination adds up beside the changes, of each site.
_DIVISORS = {
    "normalised-mean": "its steps times its weight",
    "fair-mean": "a number that follows from the received network's loss on its training patients",
}


def masked_words(plan: MaskingPlan, metrics: str, aggregation: str) -> Iterator[str]:
    """Yield what leaves a hospital beside its masked network.

    Args:
        metrics: What is measured, in words.
        aggregation: How the updates combine.
    """
    if plan.is_private:
        yield (
            "under the same mask a 1 and its steps, which are the study's: no count, no loss and "
            "nothing that is measured, since these would have no noise;"
        )
    else:
        if aggregation in _DIVISORS:
            yield f"under the same mask {_DIVISORS[aggregation]};"
        yield from _sums(plan, metrics)
    yield "the keys of the round, signed, and a hash of the network that it was sent;"
    yield "pieces of what makes its mask, each sealed for one other hospital;"
    yield (
        "once the sum is there: its pieces of the other hospitals' masks, of which enough together "
        "take the masks off the sum, and off nothing else."
    )


def _sums(plan: MaskingPlan, metrics: str) -> Iterator[str]:
    weight = "its number of training examinations" if plan.most_examinations > 1 else "a 1"
    yield f"under the same mask {weight}, its steps, and the sum of its losses;"
    yield (
        "under the same mask sums over its validation patients, where its policy lets sums out, "
        f"from which these follow: {metrics};"
    )


def floor_words(plan: MaskingPlan) -> Iterator[str]:
    """Yield how few hospitals may be in a sum, and how many may drop out of it."""
    fewest = plan.smallest_roster
    if plan.groups > 1:
        yield from _group_words(plan)
    else:
        yield (
            f"The server learns the sum of at least {plan.smallest_sum} hospitals, and never a "
            "part of it, as long as fewer than a third of the hospitals help it."
        )
    for sites in sorted({fewest, 5, 10}):
        if sites >= fewest:
            spare = sites - least_threshold(sites)
            may = "no hospital may drop out" if not spare else f"{spare} may drop out"
            yield f"Of {sites} hospitals {may} of a round after the keys were exchanged."
    if plan.shares is not None:
        return
    if plan.clip_norm is not None:
        yield (
            f"A hospital shortens a change of the network that is longer than {plan.clip_norm:g}, "
            "before it is masked."
        )
    yield (
        f"A number of the network that changes by more than {plan.grid.largest:g} in a round is "
        "not cut: the hospital leaves the round."
    )


def _group_words(plan: MaskingPlan) -> Iterator[str]:
    """Yield how few hospitals are in a group, and how often none of the others hides one."""
    sites, size = plan.smallest_roster, plan.smallest_roster // plan.groups
    yield (
        f"Each round draws the hospitals into {plan.groups} groups, by numbers that all of them "
        f"have signed beforehand. The server learns the sum of each group of {size} or more, and "
        f"of none of which fewer than {plan.smallest_group} hospitals are left: a hospital hides "
        "in its group, and no longer among all."
    )
    helping = sites - least_threshold(sites)
    alone = isolation_chance(sites, size, helping)
    if alone:
        yield (
            f"If {helping} of {sites} hospitals helped the server, one drawing in {1 / alone:.0f} "
            "would put a hospital into a group with these alone, where its own update is known. A "
            f"round that fails before anything is masked may be drawn {MOST_ATTEMPTS} times."
        )


def isolation_chance(sites: int, size: int, helping: int) -> float:
    """Return how likely all others of a hospital's group help the server, in one drawing."""
    return comb(helping, size - 1) / comb(sites - 1, size - 1)


def masking_limits(plan: MaskingPlan) -> Iterator[str]:
    """Yield what masks do not promise."""
    if plan.shares is not None:
        yield (
            f"Against the server and more than {plan.shares.colluding} hospitals that help it "
            "nothing is promised: they know each other's shares of the noise, and with a third of "
            "the hospitals the masks too."
        )
    elif not plan.is_private:
        yield (
            "Masks are not differential privacy: the sum itself, and the common network, may still "
            "tell something about a patient, the more so the fewer hospitals are in it."
        )
    yield (
        "Who controls all other hospitals of a round subtracts them from the sum. Two rounds with "
        "other hospitals differ by these."
    )
    if plan.groups > 1:
        yield (
            "The sums of other groups in each round are as many equations: from many rounds the "
            "server can work out how each hospital's updates differ from the others' on average."
        )
        return
    yield (
        "Nobody looks at a single update, so a hospital that wants to spoil the network is not "
        "found by it."
    )
