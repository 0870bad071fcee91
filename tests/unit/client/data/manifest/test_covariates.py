from typing import Any

import torch
from sklearn.preprocessing import StandardScaler

from wardround.client.data.manifest.covariates import (
    covariate_scales,
    drop_modalities,
    encode_covariates,
    lacking_covariates,
)
from wardround.client.data.manifest.examination import Examination
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

AGE_AND_SEX = [
    {"name": "age", "mean": 50, "scale": 10},
    {"name": "sex", "values": ["male", "female"]},
]


def study_of(scaling: str, **data: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "heart", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["a", "b"],
                "covariates": AGE_AND_SEX,
                "covariate_scaling": scaling,
                **data,
            },
            "model": {"network": "mlp"},
        }
    )


def rows(*covariates: tuple[str, str]) -> list[Examination]:
    return [
        Examination(row, str(row), (), (0,), covariates=texts)
        for row, texts in enumerate(covariates, start=2)
    ]


def test_numbers_are_scaled_and_categories_are_one_hot() -> None:
    study = study_of("study")
    listed = rows(("60", "male"), ("45", "female"))
    encoded = encode_covariates(listed, study.data, covariate_scales(study, listed))
    assert encoded is not None
    wanted = [[1.0, 1.0, 0.0], [-0.5, 0.0, 1.0]]
    torch.testing.assert_close(encoded, torch.tensor(wanted))


def test_what_is_missing_has_a_flag_of_its_own_and_is_not_the_mean() -> None:
    study = study_of("study", optional=["sex", "age"])
    listed = rows(("50", "male"), ("", "male"), ("60", ""), ("?", "other"))
    encoded = encode_covariates(listed, study.data, covariate_scales(study, listed))
    assert encoded is not None
    wanted = [
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0, 1.0],
    ]
    torch.testing.assert_close(encoded, torch.tensor(wanted))
    assert study.data.covariate_width == 5


def test_the_reference_of_a_category_is_zeros_and_not_missing() -> None:
    sex = {"name": "sex", "values": ["female"], "reference": "male"}
    study = study_of("study", covariates=[sex], optional=["sex"])
    texts = (("male",), ("female",), ("",))
    listed = [Examination(2, "p", (), (0,), covariates=text) for text in texts]
    encoded = encode_covariates(listed, study.data, covariate_scales(study, listed))
    assert encoded is not None
    assert encoded.tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def test_a_missing_value_of_a_covariate_that_is_not_optional_is_named() -> None:
    data = study_of("study", optional=["age"]).data
    assert lacking_covariates(("", ""), data) == ("sex",)
    assert lacking_covariates(("", "other"), data) == ("sex",)
    assert lacking_covariates(("", "male"), data) == ()


def test_a_site_scales_by_its_own_training_patients() -> None:
    study = study_of("site")
    ages = [20.0, 35.0, 71.0]
    train = rows(*((str(age), "male") for age in ages), ("", "male"))
    scaler = StandardScaler().fit([[age] for age in ages])
    scales = covariate_scales(study, train)
    encoded = encode_covariates(rows(("40", "male")), study.data, scales)
    assert encoded is not None
    assert abs(float(encoded[0, 0]) - float(scaler.transform([[40.0]])[0, 0])) < 1e-6


def test_a_constant_column_becomes_zeros() -> None:
    study = study_of("site")
    train = rows(("50", "male"), ("50", "male"))
    encoded = encode_covariates(train, study.data, covariate_scales(study, train))
    assert encoded is not None
    assert encoded[:, 0].tolist() == [0.0, 0.0]


def test_a_study_without_covariates_has_none() -> None:
    images = {"study": {"name": "i", "task": "classification"}, "model": {"network": "small-cnn"}}
    study = parse_study({**images, "data": {"classes": ["a", "b"], "size": [8, 8]}})
    assert encode_covariates(rows(("1", "male")), study.data, ()) is None


def test_modality_dropout_leaves_out_what_may_be_missing_and_nothing_else() -> None:
    study = parse_study(
        {
            "study": {"name": "x", "task": "classification"},
            "data": {
                "classes": ["a", "b"],
                "size": [8, 8],
                "channels": ["t1", "t2"],
                "covariates": AGE_AND_SEX,
                "optional": ["t1", "t2", "sex"],
            },
            "model": {"network": "small-cnn"},
        }
    )
    # age, male, female | sex is missing | t1, t2 are missing
    whole = torch.tensor([[1.5, 1.0, 0.0, 0.0, 0.0, 0.0]]).repeat(4000, 1)
    whole[0, 4] = 1.0  # one has no t1
    generator = torch.Generator().manual_seed(0)
    found = drop_modalities(whole, study.data, 0.3, generator)
    assert (found[:, 0] == 1.5).all(), "age is not optional"
    assert (found[:, 1] == 1 - found[:, 3]).all(), "a value is 0 where its flag is 1"
    assert abs(float(found[:, 3].mean()) - (1 - 0.7**2)) < 0.03, "by itself, or with all"
    assert not (found[:, 4] * found[:, 5]).any(), "an image stays"
    assert found[0, 4] == 1.0
    assert abs(float(found[1:, 4].mean()) - (0.3 - 0.09)) < 0.03
    assert torch.equal(whole[1], torch.tensor([1.5, 1.0, 0.0, 0.0, 0.0, 0.0]))
