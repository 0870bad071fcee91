"""Clinical values of a patient as input columns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, pstdev

import torch
from torch import Tensor

from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.examination import Examination
from wardround.common.errors import DataError
from wardround.common.runtime.printable import printable
from wardround.common.study.sections import CombatSection, CombatSite, Covariate
from wardround.common.study.study import Study

Scale = tuple[float, float]


def covariate_scales(study: Study, train: Sequence[Examination]) -> tuple[Scale, ...]:
    """Return mean and scale of each covariate.

    Args:
        study: With ``covariate_scaling = "site"`` the values are those of the site's own training
            examinations (mean and population standard deviation of what is present); they never
            leave the site. Otherwise they are the study's.
        train: The site's training examinations.
    """
    covariates = study.data.covariates
    if study.data.covariate_scaling == "study":
        return tuple((covariate.mean, covariate.scale) for covariate in covariates)
    return tuple(
        (0.0, 1.0) if covariate.values else _site_scale([e.covariates[place] for e in train])
        for place, covariate in enumerate(covariates)
    )


def _site_scale(texts: Sequence[str]) -> Scale:
    numbers = [number for text in texts if (number := parse_number(text)) is not None]
    if not numbers:
        return 0.0, 1.0
    return fmean(numbers), pstdev(numbers) or 1.0  # a constant column becomes zeros


def encode_covariates(
    examinations: Sequence[Examination], covariates: Sequence[Covariate], scales: Sequence[Scale]
) -> Tensor | None:
    """Return ``(N, F)`` float32: scaled numbers and one-hot categories, missing ones 0.

    None where the study has no covariates.
    """
    if not covariates:
        return None
    rows = [
        [
            column
            for covariate, scale, text in zip(covariates, scales, e.covariates, strict=True)
            for column in _columns(covariate, scale, text)
        ]
        for e in examinations
    ]
    width = sum(covariate.width for covariate in covariates)
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), width)


def _columns(covariate: Covariate, scale: Scale, text: str) -> list[float]:
    if covariate.values:
        return [float(text == value) for value in covariate.values]
    number = parse_number(text)
    return [0.0 if number is None else (number - scale[0]) / scale[1]]


def without_site(
    examinations: Sequence[Examination], study: Study, site: str
) -> tuple[Examination, ...]:
    """Return examinations whose covariates are without what is their site's, as ComBat found it.

    A feature whose value, or one of whose preserved values, is missing is missing.

    Raises:
        DataError: ComBat was not fitted with this site.
    """
    combat = study.data.combat
    if combat is None:
        return tuple(examinations)
    own = next((one for one in combat.sites if one.name == site), None)
    if own is None:
        msg = (
            f"data.combat has no row for the site {printable(site, 64)}: where a site's values lie "
            "is known from its own patients alone, so ComBat cannot place a new one. Fit it anew "
            "with this site: wardround study plan."
        )
        raise DataError(msg)
    return tuple(_placed(one, combat, own, study) for one in examinations)


def _placed(
    examination: Examination, combat: CombatSection, own: CombatSite, study: Study
) -> Examination:
    place = {covariate.name: at for at, covariate in enumerate(study.data.covariates)}
    texts = list(examination.covariates)
    by_name = {one.name: one for one in study.data.covariates}
    kept = [
        column
        for name in combat.preserve
        for column in preserved_columns(by_name[name], texts[place[name]])
    ]
    for at, name in enumerate(combat.features):
        value = parse_number(texts[place[name]])
        if value is None or None in kept:
            texts[place[name]] = ""
            continue
        effects = zip(combat.effects[at], kept, strict=True)
        expected = combat.means[at] + sum(one * (x or 0.0) for one, x in effects)
        placed = expected + (value - expected - own.shifts[at]) / own.scales[at]
        texts[place[name]] = repr(placed)
    return replace(examination, covariates=tuple(texts))


def preserved_columns(covariate: Covariate, text: str) -> Iterator[float | None]:
    """Yield the columns of a covariate whose effect is kept; None where it is missing.

    Of a category a text that the study does not list is the value of reference: no column is 1.
    """
    if covariate.values:
        yield from (float(text == value) if text else None for value in covariate.values)
    else:
        yield parse_number(text)
