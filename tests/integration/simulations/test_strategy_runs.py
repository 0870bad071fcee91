"""Whole runs of strategies that remember something: stopped and resumed, alone and in a pool."""

from pathlib import Path

import pytest
from tests.support.hospitals.table_sites import ALONE, StoppedError, study_for, write_sites
from tests.support.stage import table_study, write_table

from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.messages.instructions import Instruction
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.rounds.evaluation import measure_model
from wardround.server.rounds.loop import RoundFinished
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.experiment.simulate import SimulationRequest, simulate

REMEMBERING = ("scaffold", "fedadam", "fedbn", "fedrep", "ditto", "apfl", "feddyn", "moon")


def run(root: Path, study: Study, machine: Machine = ALONE, cut_after: int = 0) -> str:
    """Run a study to its end and return the digest of its last model and of what sites keep."""

    def listen(event: RoundFinished) -> None:
        if event.record.round == cut_after:
            raise StoppedError

    folders = sorted(root.glob("sites/*")) or write_sites(root / "sites")
    with open_grid(folders, study, machine) as grid:
        commit = run_federation(grid, study, root / "checkpoints", listen)
    last = load_model(root / "checkpoints" / "round-00004" / "model.safetensors").parameters
    kept = [
        digest(
            SiteState(open_site(folder).state_folder, study.digest, commit.progress.run).after(4)
        )
        for folder in folders
    ]
    return "\n".join((digest(commit.parameters), digest(last), *kept))


@pytest.mark.parametrize("strategy", REMEMBERING)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_not_stopped(
    strategy: str, tmp_path: Path
) -> None:
    study = study_for(strategy)
    whole = run(tmp_path / "whole", study)
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", study, cut_after=2)
    assert run(tmp_path / "cut", study) == whole


def test_what_sites_keep_of_a_round_that_is_done_again_does_not_count_twice(
    tmp_path: Path,
) -> None:
    study = study_for("scaffold")
    whole = run(tmp_path / "whole", study)
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", study, cut_after=3)
    # The server lost its last commit, the sites have already kept what belongs to it.
    newest = tmp_path / "cut" / "checkpoints" / "round-00003"
    (newest / "model.safetensors").write_bytes(b"damaged")
    assert run(tmp_path / "cut", study) == whole


def test_a_pool_keeps_the_same_at_each_site_as_one_process(tmp_path: Path) -> None:
    study = study_for("ditto")
    pool = Machine(engine="pool", workers=2, threads=1)
    assert run(tmp_path / "pool", study, pool) == run(tmp_path / "one", study)


def losses_on_test(root: Path, study: Study, personal: bool = True) -> list[float]:
    """Return each site's loss on its test patients."""
    folders = write_sites(root / "sites")
    with open_grid(folders, study, ALONE) as grid:
        commit = run_federation(grid, study, root / "checkpoints")
        nodes, _ = describe_sites(grid, study)
        instruction = Instruction(
            study.digest,
            commit.progress.run,
            commit.progress.round,
            commit.parameters,
            split="test",
            personal=personal,
        )
        measured = measure_model(grid, study, nodes, instruction)
    return [
        value.value
        for measurement in measured.values[:-1]
        for value in measurement.values
        if value.metric == "loss"
    ]


@pytest.mark.long
def test_where_hospitals_disagree_a_personal_model_is_better(tmp_path: Path) -> None:
    losses = {
        name: sum(losses_on_test(tmp_path / name, study_for(name, **{"federation.rounds": 12})))
        for name in ("fedavg", "ditto", "apfl", "fedavg-finetune")
    }
    assert losses["ditto"] < losses["fedavg"]
    assert losses["apfl"] < losses["fedavg"]
    assert losses["fedavg-finetune"] < losses["fedavg"]


def test_the_shared_model_of_ditto_and_of_fine_tuning_is_fedavgs(tmp_path: Path) -> None:
    plain = losses_on_test(tmp_path / "plain", study_for("fedavg"))
    for name in ("ditto", "fedavg-finetune"):
        assert losses_on_test(tmp_path / name, study_for(name), personal=False) == plain


def test_the_normalisations_of_fedbn_are_in_no_checkpoint(tmp_path: Path) -> None:
    study = study_for("fedbn")
    run(tmp_path, study)
    context = ModelContext.build(study, "cpu")
    files = list((tmp_path / "checkpoints").rglob("model.safetensors"))
    assert files
    for file in files:
        assert set(load_model(file).parameters) == set(context.layout.shared)
    assert {name.partition(".")[0] for name in context.layout.personal} == {"2"}


def test_moments_that_an_objective_sends_are_no_hindrance_to_the_models_it_is_compared_with(
    tmp_path: Path,
) -> None:
    manifest = write_table(tmp_path, 60, ("north", "south"))
    chosen = {"federation.objective": "coral", "simulation.compare": True}
    study = with_changes(table_study("held", manifest, rounds=1), chosen)
    simulate(SimulationRequest(study, tmp_path / "run", ALONE))
    network = ModelContext.build(study, "cpu").network
    for model in ("federated", "pooled", "local-north", "local-south"):
        saved = load_model(tmp_path / "run" / "models" / f"{model}.safetensors")
        write_parameters(network, saved.parameters)
