"""``wardround stress``: a run's models on worse and on attacked images, in its report."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.studies.tiny_runs import write_tiny_study

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.preprocessing.preprocessing import prepare_channels, read_channels
from wardround.client.site.folder import open_site
from wardround.common.models.model_folder import open_model_folder
from wardround.common.study.loading import load_study
from wardround.simulations.experiment.testing.stress.finished import in_chunks, patients_of_test
from wardround.simulations.experiment.testing.stress.grey_images import grey_images
from wardround.simulations.run_files.stress import read_attacks, read_corruptions, read_examples

QUIET = ("--quiet", "--json", "--engine", "in-process", "--threads", "1")
QUICK = ("--only", "jpeg", "--only", "brightness-up", "--severities", "1,5")
ATTACKS = ("--attacks", "--epsilons", "1,8", "--steps", "3", "--restarts", "2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves the run that the others copy."""
    return tmp_path_factory.mktemp("made") / "run"


@pytest.fixture
def run(made: Path, tiny_study, tmp_path: Path, wardround) -> Path:
    """A finished run of two hospitals with twenty small pictures."""
    if not made.exists():
        said = wardround("simulate", tiny_study.study, "--out", made, *QUIET)
        assert said.code == 0, said.err
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_run_is_stressed_and_its_report_says_so(run: Path, wardround) -> None:
    said = wardround("stress", run, *QUICK, *ATTACKS)
    assert said.code == 0, said.err
    assert "the federated model" in said.out
    rows = read_corruptions(run)
    assert {row.model for row in rows} == {"federated", "local"}
    assert {row.site for row in rows} == {"all sites", "north", "south"}
    assert {(r.corruption, r.severity) for r in rows} == {
        ("none", 0), ("jpeg", 1), ("jpeg", 5), ("brightness-up", 1), ("brightness-up", 5),
    }  # fmt: skip
    assert all(0 <= row.error <= 1 and row.low <= row.error <= row.high for row in rows)
    assert all(row.examinations == (4 if row.site == "all sites" else 2) for row in rows)
    attacks = read_attacks(run)
    assert {row.attack for row in attacks} == {"none", "fgsm", "pgd", "transfer"}
    assert {row.measure for row in attacks} == {"auroc", "balanced-accuracy"}
    assert {row.restarts for row in attacks if row.attack == "pgd"} == {1, 2}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('<section id="corruptions">') == 1
    assert page.count('<section id="adversarial">') == 1
    examples = read_examples(run)
    assert examples is not None
    assert examples.names == ("none", "jpeg", "brightness-up")
    assert "CANARY" not in said.out + said.err
    told = (run / "corruptions.csv").read_text() + (run / "adversarial.csv").read_text()
    assert "CANARY" not in told


def test_the_same_seed_gives_the_same_table_whatever_the_workers(run: Path, wardround) -> None:
    words = ("stress", run, "--only", "gaussian-noise", "--severities", "5")
    tables = []
    for more in (("--workers", "1"), ("--workers", "3"), ("--seed", "1")):
        assert wardround(*words, *more).code == 0
        tables.append(read_corruptions(run))
    assert tables[0] == tables[1]
    said = wardround(*words, "--site", "south", "--max-cases", "1", "--baseline", "none", "--json")
    rows = json.loads(said.out)["corruptions"]
    assert {(row["site"], row["model"], row["examinations"]) for row in rows} == {
        ("south", "federated", 1)
    }


def test_images_as_they_are_err_as_the_run_itself_said(run: Path, wardround) -> None:
    wardround("stress", run, *QUICK)
    clean = {(r.model, r.site): r for r in read_corruptions(run) if r.severity == 0}
    study, network = load_study(run / "study.toml"), _network(run)
    cohort = open_cohorts(open_site(run / "sites" / "north"), study).test
    batch = cohort.batch(indices_of(len(cohort)))
    right = (network(batch.images).argmax(1) == batch.targets).float().mean()
    assert clean["federated", "north"].error == pytest.approx(1 - float(right))


def test_the_path_that_is_attacked_is_the_one_that_images_take(run: Path) -> None:
    study = load_study(run / "study.toml")
    patients = patients_of_test(run / "sites" / "north", study, None)
    for places in in_chunks(patients, study):
        for some, grey in grey_images(patients, places, study):
            seen = grey.seen(grey.values, study).numpy()
            for place, image in zip(some, seen, strict=True):
                examination = patients.cohort.examinations[place]
                channels = read_channels(examination, patients.site, study)
                expected = prepare_channels(channels, study.data)
                np.testing.assert_allclose(image, expected, atol=1e-5)


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--only", "jpg"), "unknown corruption 'jpg'. Did you mean 'jpeg'? Known: "),
    (("--severities", "0,6"), "numbers from 1 to 5"),
    (("--severities", "low"), "numbers from 1 to 5"),
    (("--epsilons", "-1"), "numbers above 0"),
    (("--epsilons", "nan"), "numbers above 0"),
    (("--no-corruptions",), "add --attacks"),
    (("--model", "federate"), "unknown model 'federate'. Did you mean 'federated'?"),
    (("--baseline", "nobody"), "unknown model 'nobody'"),
    (("--site", "west"), "unknown site 'west'"),
]


def test_words_that_do_not_fit_are_refused_with_what_is_known(run: Path, wardround) -> None:
    for words, said in REFUSED:
        heard = wardround("stress", run, *words)
        assert heard.code != 0, words
        assert said in heard.err.replace("\n", " "), words
        assert "Traceback" not in heard.err
        assert not (run / "corruptions.csv").exists()


def test_a_run_without_models_and_one_of_a_table_are_refused(
    run: Path, tmp_path: Path, wardround
) -> None:
    shutil.rmtree(run / "models")
    assert "has no models" in wardround("stress", run).err
    assert "holds no run" in wardround("stress", tmp_path / "absent").err
    table = tmp_path / "table"
    table.mkdir()
    write_tiny_study(table, simulation__compare=False)
    done = wardround("simulate", table / "study.toml", "--out", table / "run", *QUIET)
    assert done.code == 0, done.err
    assert "is of a table" in wardround("stress", table / "run").err


def test_a_damaged_table_is_named_with_its_remedy(run: Path, wardround) -> None:
    wardround("stress", run, *QUICK)
    (run / "corruptions.csv").write_text("model\nfederated\n", encoding="utf-8")
    said = wardround("report", run)
    assert said.code != 0
    assert "run 'wardround stress' again" in said.err.replace("\n", " ")


def test_adversarial_training_changes_the_model_and_is_the_same_again(
    tiny_study, tmp_path: Path, wardround
) -> None:
    def trained(name: str) -> dict[str, np.ndarray]:
        out = tmp_path / name
        said = wardround("simulate", tiny_study.study, "--no-compare", "--out", out, *QUIET)
        assert said.code == 0, said.err
        return {key: value.numpy() for key, value in _network(out).state_dict().items()}

    plain = trained("plain")
    tiny_study.change_study(
        "batch_size = 4", "batch_size = 4\n[training.adversarial]\nepsilon = 8\nsteps = 2"
    )
    first, again = trained("first"), trained("again")
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], plain[key]) for key in plain)
    assert all(math.isfinite(float(value.sum())) for value in first.values())


def _network(run: Path):
    return open_model_folder(run / "models" / "federated").network()


def indices_of(count: int):
    import torch

    return torch.arange(count)
