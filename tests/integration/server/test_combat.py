"""ComBat across hospitals: exact sums leave once, and each site takes out what is its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.hospitals.hospital import refusal_of, write_policy
from tests.support.hospitals.image_ward import ask_statistics

from wardround.client.app import close_sessions
from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError, StudyError
from wardround.common.messages.statistics import SiteStatistics, check_statistics, unpack_statistics
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected, as_parameters, from_parameters
from wardround.server.planning.study_file import planned_study, study_text
from wardround.server.planning.study_plan import plan_study

ASKED = [
    {"name": "age", "low": 20, "high": 90, "preserve": True},
    {"name": "sex", "preserve": True},
    {"name": "pressure", "low": 60, "high": 240},
    {"name": "rate", "low": 30, "high": 220},
    {"name": "weight", "low": 30, "high": 160},
]


def study_of(combat: Any = ASKED, ask: bool = True, **sections: Any) -> Study:
    names = ("age", "pressure", "rate", "weight")
    covariates: list[dict[str, Any]] = [{"name": name} for name in names]
    content = {
        "study": {"name": "table", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["a", "b"],
            "covariates": [*covariates, {"name": "sex", "values": ["m"], "reference": "f"}],
            "optional": list(names),
        },
        "model": {"network": "mlp", "features": [6], "normalisation": "layer"},
        "federation": {"rounds": 1},
        "statistics": {"ask": ask, "combat": combat},
        **sections,
    }
    return parse_study(content)


STUDY = study_of()
TEN = {"smallest_cell": "10", "smallest_cohort": "10"}


def table_of(site: str, count: int) -> pd.DataFrame:
    drawn = np.random.default_rng(len(site))
    age, sex = drawn.integers(25, 85, count), drawn.integers(0, 2, count)
    base = 0.3 * (age - 50) + 6 * sex + 8 * len(site)
    columns = {"age": age, "sex": np.where(sex == 1, "m", "f")}
    for place, name in enumerate(("pressure", "rate", "weight")):
        columns[name] = 80 + base + (5 + 4 * place) * drawn.normal(size=count)
    return pd.DataFrame(columns)


def write_hospital(folder: Path, table: pd.DataFrame, study: Study = STUDY, **policy: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n')
    rows = ["patient,split,label," + ",".join(table.columns)]
    for number, values in enumerate(table.itertuples(index=False)):
        part = {0: "validation", 1: "test"}.get(number, "train")
        cells = ",".join(
            value if isinstance(value, str) else repr(float(value)) for value in values
        )
        rows.append(f"P{number},{part},{'ab'[number % 2]},{cells}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    said = {"statistics": '"exact"', "smallest_cohort": "1", "smallest_cell": "1"}
    write_policy(folder, **{"approved": f'["{study.digest}"]', **said, **policy})
    return folder


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def hospitals(tmp_path: Path) -> dict[str, Path]:
    sizes = {"n": 60, "so": 40, "west": 90}
    return {s: write_hospital(tmp_path / s, table_of(s, count)) for s, count in sizes.items()}


def fitted(folders: dict[str, Path]) -> tuple[Study, str]:
    said = {s: unpack_statistics(ask_statistics(f, STUDY), STUDY) for s, f in folders.items()}
    kept = from_parameters(as_parameters(Collected(said)), STUDY)
    plan = plan_study(kept, STUDY)
    planned = planned_study(STUDY, plan)
    return planned, study_text(planned, plan)


def oracle(tables: dict[str, pd.DataFrame]) -> np.ndarray:
    from neuroCombat import neuroCombat

    whole = pd.concat([t.assign(site=s) for s, t in tables.items()], ignore_index=True)
    found = neuroCombat(
        dat=whole[["pressure", "rate", "weight"]].to_numpy(dtype=np.float64).T.copy(),
        covars=whole[["site", "age", "sex"]],
        batch_col="site",
        categorical_cols=["sex"],
        continuous_cols=["age"],
    )
    return found["data"].T


@pytest.mark.filterwarnings("ignore")
def test_each_site_has_the_values_that_pooled_combat_gives_its_training_patients(
    tmp_path: Path,
) -> None:
    folders = hospitals(tmp_path / "sites")
    planned, text = fitted(folders)
    assert "cannot\n# be placed" in text
    (tmp_path / "planned.toml").write_text(text)
    assert load_study(tmp_path / "planned.toml").digest == planned.digest
    tables = {
        s: table_of(s, len(f.joinpath("manifest.csv").read_text().splitlines()) - 1)
        for s, f in folders.items()
    }
    expected = oracle({s: t.iloc[2:] for s, t in tables.items()})
    found = []
    for folder in folders.values():
        cohort = open_cohorts(open_site(folder), planned).train
        found += [[float(text) for text in e.covariates[1:4]] for e in cohort.examinations]
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=1e-8)


def test_a_site_that_was_not_fitted_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    planned, _ = fitted(hospitals(tmp_path / "sites"))
    new = write_hospital(tmp_path / "new", table_of("new", 30))
    with pytest.raises(DataError, match=r"no row for the site new.*cannot place a new one. Fit it"):
        open_cohorts(open_site(new), planned)
    with pytest.raises(StudyError, match="come from the patients without noise"):
        with_changes(planned, {"privacy.mode": "patient", "privacy.epsilon": 8})


def test_a_missing_value_stays_missing(tmp_path: Path) -> None:
    planned, _ = fitted(hospitals(tmp_path / "sites"))
    table = table_of("n", 20).astype(object)
    table.loc[5, "rate"] = "NA"
    table.loc[6, "age"] = "NA"
    folder = write_hospital(tmp_path / "n", table)
    by_row = {e.row: e for e in open_cohorts(open_site(folder), planned).train.examinations}
    assert [bool(text) for text in by_row[7].covariates[1:4]] == [True, False, True]
    assert by_row[8].covariates[1:4] == ("", "", "")


def test_what_becomes_missing_with_a_preserved_value_must_be_optional_too() -> None:
    content = STUDY.model_dump(mode="json", exclude_defaults=True)
    content["data"]["optional"] = ["age"]
    with pytest.raises(StudyError, match="add 'pressure' to data"):
        parse_study(content)


def test_only_a_policy_that_says_exact_lets_sums_out_and_none_of_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of("n", 60)
    few = table.copy()
    few["sex"] = ["m", "m", "m", "m", *["f"] * 56]
    cases = {
        "yes": (table, {"statistics": '"yes"'}, "only 'exact' lets them out"),
        "short": (table.iloc[:15], TEN, "fewer than 18 training patients"),
        "rare": (few, TEN, "fewer than smallest_cell = 10"),
    }
    for name, (rows, policy, words) in cases.items():
        folder = write_hospital(tmp_path / name, rows, **policy)
        content = ask_statistics(folder, STUDY)
        _, code, reason = refusal_of(content)
        assert code == "policy"
        assert words in caplog.text + reason, name
        assert not list((folder / "statistics").glob("*.answer"))
    folder = write_hospital(tmp_path / "enough", table, **TEN)
    first, second = (ask_statistics(folder, STUDY) for _ in range(2))
    one, other = (unpack_statistics(content, STUDY) for content in (first, second))
    np.testing.assert_array_equal(one.cells["moments"], other.cells["moments"])
    assert one.patients == 58
    assert np.abs(one.cells["moments"]).max() <= 58


def test_sums_of_no_patients_are_refused_at_the_servers_door() -> None:
    rows = np.column_stack([np.ones(9), np.random.default_rng(0).uniform(-1, 1, (9, 5))])
    good = rows.T @ rows

    def check(sums: np.ndarray, patients: int = 9) -> None:
        check_statistics(SiteStatistics("n", STUDY.digest, patients, {"moments": sums}), STUDY)

    check(good)
    lying = [good * 2, good - 5 * np.eye(6), np.full((6, 6), np.nan), good[:5, :5]]
    skew = good.copy()
    skew[1, 2] += 1
    for sums in (*lying, skew):
        with pytest.raises(Exception, match="sums of n are"):
            check(sums)
    with pytest.raises(Exception, match="those of no 8 patients"):
        check(good, 8)


def test_a_hospital_reads_what_leaves_and_how_much_a_patient_moves_it() -> None:
    said = explain_study(STUDY)
    assert "21 sums of age, sex, pressure, rate, weight" in said
    assert "a patient moves no sum by more than 1" in said
    assert "the difference is that patient" in said


@pytest.mark.parametrize(
    ("combat", "words"),
    [
        (ASKED[:3], "has 1 to change: give two"),
        ([*ASKED, {"name": "height"}], "'height', which is none of data.covariates"),
        ([*ASKED, ASKED[0]], "names a covariate twice"),
        ([*ASKED[2:], {"name": "sex"}], "'sex' has categories: set its preserve"),
        ([*ASKED[:4], {"name": "weight", "low": 9, "high": 9}], "counts weight from 9 to 9"),
    ],
)
def test_what_combat_cannot_be_fitted_to_is_refused(combat: Any, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        study_of(combat)


def test_private_studies_are_refused_with_the_reason() -> None:
    with pytest.raises(StudyError, match="would need noise on its sums"):
        study_of(privacy={"mode": "patient", "epsilon": 8})
    with pytest.raises(StudyError, match="would tell a server of single hospitals"):
        study_of(privacy={"mode": "site", "noise_multiplier": 1.0}, evaluation={"keep": "last"})
