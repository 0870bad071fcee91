"""Whole runs from Python: what they give back, and what they do to the process they run in."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch
from tests.support.studies.tiny_runs import SITES, write_tiny_study

import wardround
from wardround.client.app import close_sessions
from wardround.common.parameters.schema import read_parameters
from wardround.common.runtime.system.workers import can_fork
from wardround.common.study.loading import with_changes
from wardround.simulations import RoundDone, SimulationResult


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    folder = tmp_path_factory.mktemp("notebook")
    write_tiny_study(folder)
    return wardround.simulate(folder / "study.toml", folder / "run", engine="in-process", threads=1)


def test_a_run_says_what_it_came_to(run: SimulationResult) -> None:
    assert run.status == "finished"
    assert run.report.is_file()
    assert tuple(run.models) == ("federated", "local-north", "local-south", "pooled")
    assert [site.site for site in run.verdict.sites] == list(SITES)
    assert all(site.own == site.own for site in run.verdict.sites)
    assert run.headline.endswith(".")
    assert {"model", "round", "site", "metric", "value"} <= {*run.metrics.columns}
    assert wardround.open_run(run.folder) == run
    with pytest.raises(FrozenInstanceError):
        run.status = "failed"  # type: ignore[misc]


def test_a_run_records_a_command_that_repeats_it(run: SimulationResult) -> None:
    from wardround.simulations.run_files.folder import read_facts

    study = str(run.folder / "study.toml")
    words = ("--engine", "in-process", "--device", "auto", "--threads", "1")
    assert read_facts(run.folder).command == ("wardround", "simulate", study, *words)


def test_seed_and_comparison_can_be_chosen_and_events_are_heard(tmp_path: Path) -> None:
    study, heard = write_tiny_study(tmp_path), list[object]()
    result = wardround.simulate(
        study, tmp_path / "run", seed=7, compare=False, threads=1, on_event=heard.append
    )
    assert tuple(result.models) == ("federated",)
    assert (result.study.federation.seed, result.study.simulation.seed) == (7, 7)
    assert [e.round for e in heard if isinstance(e, RoundDone)] == [1, 2]


def test_a_run_without_a_folder_makes_one_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path, federation__rounds=1)
    folders = {wardround.simulate(study, compare=False, threads=1).folder for _ in range(2)}
    assert {folder.parent for folder in folders} == {Path("runs")}
    assert len(folders) == 2
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "poool"}, "unknown engine 'poool'. Did you mean 'pool'?"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"study": "hart-disease"}, "Did you mean 'heart-disease'?"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    options: dict[str, str], words: str, tmp_path: Path
) -> None:
    study = options.pop("study", None) or write_tiny_study(tmp_path)
    with pytest.raises(wardround.InputError) as error:
        wardround.simulate(study, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_model_predicts_what_the_run_measured(run: SimulationResult) -> None:
    from wardround.client import open_cohorts

    model = run.model()
    assert (model.name, model.class_names) == ("federated", ("no", "yes"))
    assert not model.network.training
    right = total = 0
    for name in SITES:
        test = open_cohorts(wardround.open_site(run.folder / "sites" / name), model.study).test
        for index in range(len(test)):
            patient = test.case(index)
            with torch.inference_mode():
                chosen = model.network(*patient.inputs).argmax(dim=1)
            right, total = right + int((chosen == patient.targets).sum()), total + 1
    measured = next(
        row
        for row in run.rows
        if (row.model, row.round, row.site, row.metric, row.class_name)
        == ("federated", -1, "all sites", "accuracy", "")
    )
    assert right / total == pytest.approx(measured.value)


def test_a_model_of_a_file_needs_its_study(run: SimulationResult, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes((run.folder / "models" / "pooled.safetensors").read_bytes())
    with pytest.raises(wardround.InputError, match="give study="):
        wardround.load_model(file)
    given = wardround.load_model(file, study=run.study)
    beside = wardround.load_model(run.folder / "models" / "pooled.safetensors")
    one, other = read_parameters(given.network), read_parameters(beside.network)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert given.name == beside.name == "pooled"


def test_a_model_that_is_not_there_is_named_with_those_that_are(
    run: SimulationResult, tmp_path: Path
) -> None:
    with pytest.raises(wardround.ModelError, match=r"unknown model 'poold'.*'pooled'.*federated"):
        run.model("poold")
    with pytest.raises(wardround.ModelError, match="holds no finished model"):
        wardround.load_model(tmp_path)


def test_a_personalised_strategy_has_a_model_for_each_site_and_no_other(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path, federation__strategy="fedrep")
    run = wardround.simulate(study, tmp_path / "run", compare=False, threads=1)
    with pytest.raises(wardround.ModelError, match="give site=, one of: north, south"):
        run.model()
    with pytest.raises(wardround.InputError, match="unknown site 'nort'"):
        run.model(site="nort")
    north, south = (read_parameters(run.model(site=site).network) for site in SITES)
    different = [name for name in north if not torch.equal(north[name], south[name])]
    assert different
    assert len(different) < len(north)


def test_a_site_trains_alone_as_the_run_s_comparison_did(run: SimulationResult) -> None:
    site = wardround.open_site(run.folder / "sites" / "north")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training = wardround.train_locally(run.study, site)
    finally:
        torch.set_num_threads(before)
    assert (training.examinations, training.steps) == (32, 8)
    assert len(training.training_losses) == 2
    assert {row["metric"] for row in training.metrics} >= {"loss", "auroc", "accuracy"}
    expected = read_parameters(run.model("local-north").network)
    trained = read_parameters(training.network)
    assert all(torch.allclose(trained[name], expected[name]) for name in expected)


def test_a_given_model_is_where_a_training_starts_and_stays_as_it_is(
    run: SimulationResult,
) -> None:
    model = run.model().network
    before = read_parameters(model)
    site = run.folder / "sites" / "south"
    training = wardround.train_locally(run.study, site, model, rounds=1)
    after, trained = read_parameters(model), read_parameters(training.network)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, change in training.update.items():
        assert torch.allclose(before[name] + change, trained[name], atol=1e-6)
    assert any(bool(change.any()) for change in training.update.values())


def test_a_training_by_hand_leaves_what_a_federation_remembers_alone(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path, federation__strategy="scaffold")
    run = wardround.simulate(study, tmp_path / "run", compare=False, threads=1)
    state = run.folder / "sites" / "north" / "state"
    held = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert held
    wardround.train_locally(study, run.folder / "sites" / "north", rounds=1)
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == held


def test_a_training_by_hand_of_a_private_study_is_refused_with_the_way_out(
    run: SimulationResult,
) -> None:
    from wardround.common import without_privacy

    study = with_changes(
        run.study, {"privacy.mode": "patient", "privacy.epsilon": 8.0, "evaluation.keep": "last"}
    )
    site = run.folder / "sites" / "north"
    with pytest.raises(wardround.PolicyError, match="charged to no ledger"):
        wardround.train_locally(study, site)
    assert wardround.train_locally(without_privacy(study), site, rounds=1).steps


def test_other_networks_and_no_rounds_are_refused(run: SimulationResult) -> None:
    site = run.folder / "sites" / "north"
    with pytest.raises(wardround.ModelError):
        wardround.train_locally(run.study, site, torch.nn.Linear(2, 2))
    with pytest.raises(wardround.InputError, match="rounds=0 trains nothing"):
        wardround.train_locally(run.study, site, rounds=0)


@pytest.mark.pages
def test_a_process_whose_threads_have_computed_is_not_forked_and_simulates_again(
    tmp_path: Path,
) -> None:
    # Before, the workers of the second run waited for threads that a fork does not take along.
    write_tiny_study(tmp_path, federation__rounds=1)
    code = (
        "import torch, wardround\n"
        "from wardround.common.runtime.system.workers import can_fork\n"
        "torch.set_num_threads(2)\n"
        "wardround.simulate('study.toml', 'one', engine='in-process', threads=2)\n"
        "torch.ones(2**20).add_(1)\n"
        "assert not can_fork()\n"
        "run = wardround.simulate('study.toml', 'two', engine='pool', workers=2, threads=1)\n"
        "run = wardround.simulate('study.toml', 'three', engine='pool', workers=2, threads=1)\n"
        "print(run.status, *run.models)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)  # without `if __name__ == "__main__"`: a worker must not run it again
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "finished federated local-north local-south pooled\n", done.stderr


def test_a_process_without_threads_is_forked(tmp_path: Path) -> None:
    code = "from wardround.common.runtime.system.workers import can_fork; print(can_fork())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_attackers_app_reaches_a_worker_that_was_not_forked() -> None:
    import pickle

    from wardround.simulations.adversaries.poisoning import poisonable_app

    assert type(pickle.loads(pickle.dumps(poisonable_app()))) is type(poisonable_app())
    close_sessions()
    assert isinstance(can_fork(), bool)
