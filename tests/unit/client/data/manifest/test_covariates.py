import torch
from sklearn.preprocessing import StandardScaler

from wardround.client.data.manifest.covariates import covariate_scales, encode_covariates
from wardround.client.data.manifest.examination import Examination
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

AGE_AND_SEX = [
    {"name": "age", "mean": 50, "scale": 10},
    {"name": "sex", "values": ["male", "female"]},
]


def study_of(scaling: str) -> Study:
    return parse_study(
        {
            "study": {"name": "heart", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["a", "b"],
                "covariates": AGE_AND_SEX,
                "covariate_scaling": scaling,
            },
            "model": {"network": "mlp"},
        }
    )


def rows(*covariates: tuple[str, str]) -> list[Examination]:
    return [
        Examination(row, str(row), (), (0,), covariates=texts)
        for row, texts in enumerate(covariates, start=2)
    ]


def test_numbers_are_scaled_categories_are_one_hot_and_what_is_missing_is_zero() -> None:
    study = study_of("study")
    listed = rows(("60", "male"), ("45", "female"), ("", "other"), ("?", ""))
    encoded = encode_covariates(listed, study.data.covariates, covariate_scales(study, listed))
    assert encoded is not None
    wanted = [[1.0, 1.0, 0.0], [-0.5, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(encoded, torch.tensor(wanted))


def test_a_site_scales_by_its_own_training_patients() -> None:
    study = study_of("site")
    ages = [20.0, 35.0, 71.0]
    train = rows(*((str(age), "male") for age in ages), ("", "male"))
    scaler = StandardScaler().fit([[age] for age in ages])
    scales = covariate_scales(study, train)
    encoded = encode_covariates(rows(("40", "male")), study.data.covariates, scales)
    assert encoded is not None
    assert abs(float(encoded[0, 0]) - float(scaler.transform([[40.0]])[0, 0])) < 1e-6


def test_a_constant_column_becomes_zeros() -> None:
    study = study_of("site")
    train = rows(("50", "male"), ("50", "male"))
    encoded = encode_covariates(train, study.data.covariates, covariate_scales(study, train))
    assert encoded is not None
    assert encoded[:, 0].tolist() == [0.0, 0.0]


def test_a_study_without_covariates_has_none() -> None:
    assert encode_covariates(rows(("1", "male")), (), ()) is None
