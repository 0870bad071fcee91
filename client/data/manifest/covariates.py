"""Clinical values of a patient as input columns, and what an examination lacks as flags."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, pstdev

import torch
from torch import Generator, Tensor

from wardround.client.data.manifest.cells import is_missing, parse_number
from wardround.client.data.manifest.examination import Examination
from wardround.common.errors import DataError
from wardround.common.runtime.printable import printable
from wardround.common.study.sections.combat import CombatSection, CombatSite
from wardround.common.study.sections.data import Covariate, DataSection
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


def listed_words(covariate: Covariate) -> tuple[str, ...]:
    """Return the words of a category that the study knows, that of its reference too."""
    return (*covariate.values, *([covariate.reference] if covariate.reference else ()))


def has_no_value(covariate: Covariate, text: str) -> bool:
    """Return whether a text says nothing of a covariate: empty, ``?``, or a word not listed."""
    if covariate.values:
        return text not in listed_words(covariate)
    return is_missing(text)


def lacking_covariates(texts: Sequence[str], data: DataSection) -> tuple[str, ...]:
    """Return the names of the covariates that have no value, and may not lack one.

    Args:
        texts: Of an examination, in the study's order.
        data: Says the covariates, and which of them are optional.
    """
    return tuple(
        covariate.name
        for covariate, text in zip(data.covariates, texts, strict=True)
        if covariate.name not in data.optional and has_no_value(covariate, text)
    )


def missing_parts(examination: Examination, data: DataSection) -> tuple[str, ...]:
    """Return the names of the optional covariates and channels that an examination lacks."""
    names = (*data.optional_covariates, *data.optional_channels)
    flags = _flags(examination, data)
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)


def encode_covariates(
    examinations: Sequence[Examination], data: DataSection, scales: Sequence[Scale]
) -> Tensor | None:
    """Return ``(N, F)`` float32; None where the study has no covariates and lets nothing lack.

    The columns are scaled numbers and one-hot categories, then a flag an optional covariate, then
    a flag an optional channel: 1 where the examination lacks it, and 0 in its columns. The flag's
    weights in the first layer are the token that stands for what is missing.
    """
    if not data.covariate_width:
        return None
    rows = [[*_values(e, data, scales), *_flags(e, data)] for e in examinations]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), data.covariate_width)


def _values(examination: Examination, data: DataSection, scales: Sequence[Scale]) -> list[float]:
    texts = examination.covariates
    return [
        column
        for covariate, scale, text in zip(data.covariates, scales, texts, strict=True)
        for column in _columns(covariate, scale, text)
    ]


def _columns(covariate: Covariate, scale: Scale, text: str) -> list[float]:
    if covariate.values:
        return [float(text == value) for value in covariate.values]
    number = parse_number(text)
    return [0.0 if number is None else (number - scale[0]) / scale[1]]


def _flags(examination: Examination, data: DataSection) -> list[float]:
    covariates = zip(data.covariates, examination.covariates, strict=True)
    channels = zip(data.channels, examination.images, strict=False)  # a table has no images
    return [
        *(float(has_no_value(one, text)) for one, text in covariates if one.name in data.optional),
        *(float(image is None) for name, image in channels if name in data.optional_channels),
    ]


def drop_modalities(
    covariates: Tensor, data: DataSection, chance: float, generator: Generator
) -> Tensor:
    """Return the columns of a batch as if some of its examinations lacked more than they do.

    Each optional channel and each optional covariate is left out with the chance, and with the
    same chance all optional covariates at once, as at a site that has none of them. The last image
    of an examination stays (Neverova et al. 2016, ModDrop).

    Args:
        covariates: ``(B, F)`` as :func:`encode_covariates` made them.
        data: Says what is optional.
        chance: Of each, in [0, 1).
        generator: Of the CPU.
    """
    count, values = len(covariates), len(data.optional_covariates)
    channels = len(data.optional_channels)
    drawn = torch.rand(count, values + channels + 1, generator=generator) < chance
    lost = drawn[:, :values] | drawn[:, -1:]
    flags = torch.cat([lost, drawn[:, values : values + channels]], dim=1).to(covariates.dtype)
    already = covariates[:, data.value_width :]
    flags = torch.maximum(flags, already)
    if channels == len(data.channels):  # of images all may be lacking
        none_left = flags[:, values:].amin(1, keepdim=True) > 0
        flags[:, values:] = torch.where(none_left, already[:, values:], flags[:, values:])
    kept = covariates[:, : data.value_width].clone()
    start = 0
    for covariate in data.covariates:
        if covariate.name in data.optional:
            flag = flags[:, data.optional_covariates.index(covariate.name)][:, None]
            kept[:, start : start + covariate.width] *= 1 - flag
        start += covariate.width
    return torch.cat([kept, flags], dim=1)


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
