"""What follows from a study whose updates are masked: the numbers that are added up, and floors."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardround.common.privacy.secure_aggregation.context import SMALLEST_ROSTER, least_threshold
from wardround.common.privacy.secure_aggregation.fixed_point import MOST_VALUE_BITS, Grid
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.sections.federation import MaskingOptions
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.study.plans.distributed_noise import NoiseShares

# A sum that is no count, e.g. of losses, is told to so many binary places.
FRACTION_BITS = 20
# A control variate is a mean of gradients: a range of its own, on a grid of as many steps.
LARGEST_CONTROL = 1024.0
# Combinations in which a site's examinations are no weight.
EQUAL = ("mean", "fair-mean")


@dataclass(frozen=True, slots=True)
class MaskingPlan:
    """How the numbers of an update are coded, and how few sites may take part.

    Attributes:
        grid: Of the changes, each times its site's share of ``most_examinations``.
        most_examinations: A site with more counts as one with so many; 1 where all count the same.
        smallest_roster: With fewer sites nothing is masked.
        clip_norm: Longest change that a site lets into the sum, None for any.
        shares: What noise each site adds to its numbers; None for none.
        is_private: Whether nothing that has no noise may stand in the sum.
        groups: How many sums a round has.
        smallest_group: Of fewer sites no sum is told.
    """

    grid: Grid
    most_examinations: int
    smallest_roster: int
    clip_norm: float | None = None
    shares: "NoiseShares | None" = None
    is_private: bool = False
    groups: int = 1
    smallest_group: int = SMALLEST_ROSTER

    @property
    def smallest_sum(self) -> int:
        """Of how many sites a sum that the server learns is at least."""
        return _smallest_sum(self.groups, self.smallest_group, self.smallest_roster)

    @property
    def control_grid(self) -> Grid:
        """The whole numbers that stand for control variates."""
        return replace(self.grid, largest=LARGEST_CONTROL)

    def weight(self, examinations: int) -> int:
        """Return what a site counts."""
        return min(max(examinations, 0), self.most_examinations)


def plan_masking(study: Study) -> MaskingPlan | None:
    """Return how a study's updates are masked; None where they are not."""
    federation = study.federation
    if not federation.secure_aggregation:
        return None
    options, shares = federation.masks, _shares(study)
    is_private = study.privacy.mode != "none"  # then nobody says how many examinations it has
    is_equal = plan_of(study).aggregation in EQUAL or is_private
    largest = options.largest_change if shares is None else shares.largest
    return MaskingPlan(
        Grid(largest, _value_bits(options), options.most_sites),
        1 if is_equal else options.most_examinations,
        max(SMALLEST_ROSTER, federation.minimum_sites),
        options.clip_norm,
        shares,
        is_private,
        options.groups,
        options.smallest_group,
    )


def smallest_sum(study: Study) -> int:
    """Return of how many sites a sum of a masked study is at least; its noise is not solved for."""
    masks, roster = study.federation.masks, study.federation.minimum_sites
    return _smallest_sum(masks.groups, masks.smallest_group, max(SMALLEST_ROSTER, roster))


def _smallest_sum(groups: int, smallest_group: int, smallest_roster: int) -> int:
    return smallest_group if groups > 1 else least_threshold(smallest_roster)


def _shares(study: Study) -> "NoiseShares | None":
    if study.privacy.noise != "distributed":
        return None
    from wardround.common.study.plans.distributed_noise import plan_shares

    return plan_shares(study)


def _value_bits(options: MaskingOptions) -> int:
    """Return how many bits a site's number has, so that the sum of all fits into a word."""
    if options.word_bits == 64:
        return MOST_VALUE_BITS
    return options.word_bits - options.most_sites.bit_length()
