"""Clinical values of a patient as input columns."""

from collections.abc import Sequence
from statistics import fmean, pstdev

import torch
from torch import Tensor

from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.examination import Examination
from wardround.common.study.sections import Covariate
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
