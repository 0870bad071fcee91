"""``[data.combat]`` and ``[[statistics.combat]]``: ComBat, and the covariates it is fitted to."""

from typing import Annotated

from pydantic import Field

from wardround.common.study.sections.fields import Measured, Name, Positive, Section


class CombatSite(Section):
    """``[[data.combat.sites]]``: how far a site's values lie from the others', as ComBat found.

    Attributes:
        shifts: Of each feature, what the site adds; in the feature's units.
        scales: How many times as far the feature spreads there.
    """

    name: Name
    shifts: Annotated[tuple[Measured, ...], Field(max_length=64)]
    scales: Annotated[tuple[Positive, ...], Field(max_length=64)]


class CombatSection(Section):
    """``[data.combat]``: covariates without what is their site's, by parameters that were fitted.

    ``wardround study plan`` writes it from the sites' sums. A site without a row cannot take part:
    where its values lie is not known before ComBat is fitted anew, with its sums.

    Attributes:
        features: The covariates that are changed.
        preserve: Those whose effect is kept: a category is one column a value.
        means: Of each feature, at preserved columns of 0.
        effects: For each feature, what each preserved column adds.
    """

    features: Annotated[tuple[Name, ...], Field(min_length=2, max_length=64)]
    preserve: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    means: Annotated[tuple[Measured, ...], Field(max_length=64)]
    effects: Annotated[
        tuple[Annotated[tuple[Measured, ...], Field(max_length=64)], ...], Field(max_length=64)
    ]
    sites: Annotated[tuple[CombatSite, ...], Field(min_length=2, max_length=1_000)]


class CombatColumn(Section):
    """``[[statistics.combat]]``: a covariate that ComBat is fitted to.

    Attributes:
        low: A value below counts as this: no patient moves a sum further. Of a category nothing.
        high: And one above as this.
        preserve: Whether its effect on the others is kept, and its own values are not changed.
    """

    name: Name
    low: Measured = 0.0
    high: Measured = 1.0
    preserve: bool = False
