"""What a person reads before they approve: whether this site's private steps are far too small."""

import csv
from pathlib import Path

import pytest

from wardround.client.doctor.terms import terms_of
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def study_of(**privacy: object) -> Study:
    return parse_study(
        {
            "study": {"name": "table", "task": "classification"},
            "data": {"kind": "table", "classes": ["no", "yes"], "covariates": [{"name": "a"}]},
            "model": {"network": "mlp", "features": []},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": 2},
            "privacy": {"mode": "patient", "epsilon": 8.0, "sampling_rate": 0.1, **privacy},
        }
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    (tmp_path / "policy.toml").write_text("privacy_required = true\n")
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        rows = [[f"p{n}", ("no", "yes")[n % 2], "train", n] for n in range(50)]
        writer = csv.writer(stream)
        writer.writerows([["patient", "label", "split", "a"], *rows])
        splits = [["v0", "no", "validation", 1], ["v1", "yes", "validation", 2]]
        writer.writerows([*splits, ["t0", "no", "test", 1], ["t1", "yes", "test", 2]])
    return tmp_path


@pytest.mark.parametrize(("expected", "times"), [(32, "6.4"), (11, "2.2"), (10, ""), (5, "")])
def test_steps_that_are_divided_by_too_many_patients_are_said_before_the_approval(
    site: Path, expected: int, times: str
) -> None:
    lines = terms_of(site, study_of(expected_patients=expected)).lines
    (line,) = [line for line in lines if line.startswith("patients here: 50 to train")]
    assert ("times too small" in line) == bool(times)
    if times:
        said = f"draws 5.0 of them on average and divides their sum by {expected}"
        assert said in line
        assert f"{times} times too small" in line
