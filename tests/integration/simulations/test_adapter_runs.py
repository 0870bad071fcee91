"""Whole runs in which only adapters and the head are trained and sent."""

from pathlib import Path
from typing import Any

import pytest

from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.files.tables import read_table
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.parameters.schema import Parameters, schema
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.experiment.simulate import SimulationRequest, resume, simulate
from wardround.simulations.experiment.training import load_trained
from wardround.simulations.run_files.events import Event, RoundDone
from wardround.simulations.run_files.folder import FEDERATED, MetricRow, TrafficRow

ALONE = Machine(device="cpu", engine="in-process", threads=1)
VIT: dict[str, Any] = {
    "model.network": "vit",
    "model.features": None,
    "model.normalisation": "default",
    "model.adapter_rank": 2,
    "data.size": [32, 32],
    "training.local_steps": 2,
    "training.learning_rate": 0.01,
    "evaluation.metric": "loss",
}


def study_from(tiny_study: Any, **changes: Any) -> Study:
    return with_changes(load_study(tiny_study.study), VIT | changes)


def models(run: Path) -> dict[str, str]:
    return {
        path.stem: digest(load_model(path).parameters)
        for path in (run / "models").glob("*.safetensors")
    }


def stop_in_round_two(event: Event) -> None:
    if isinstance(event, RoundDone) and event.stage == "federated" and event.round == 2:
        raise KeyboardInterrupt


@pytest.mark.long
def test_a_run_sends_adapters_compares_its_models_and_goes_on_after_a_stop(
    tiny_study: Any, tmp_path: Path
) -> None:
    study = study_from(tiny_study, **{"federation.rounds": 3})
    simulate(SimulationRequest(study, tmp_path / "whole", ALONE))
    whole = models(tmp_path / "whole")
    assert whole.keys() == {"federated", "pooled", "local-north", "local-south"}
    assert len(set(whole.values())) == 4

    context = ModelContext.build(study, "cpu")
    layout = context.layout
    files = list((tmp_path / "whole").rglob("model*/*.safetensors"))
    files += list((tmp_path / "whole" / "checkpoints").rglob("model.safetensors"))
    assert len(files) > 4
    for file in files:
        assert set(load_model(file).parameters) == set(layout.shared)
    sent = sum(spec.byte_count for spec in schema(load_model(files[0]).parameters))
    # Each array has a header of its own, which counts for more the smaller the arrays are.
    for row in read_table(tmp_path / "whole" / "traffic.csv", TrafficRow):
        assert sent < row.bytes_up < sent + 200 * len(layout.shared)

    tested = read_table(tmp_path / "whole" / "metrics.csv", MetricRow)
    assert {row.model for row in tested if row.round == -1} == whole.keys()
    assert (tmp_path / "whole" / "samples.npz").exists()
    assert not list((tmp_path / "whole" / "sites").rglob("state/*/round-*"))

    with pytest.raises(KeyboardInterrupt):
        simulate(SimulationRequest(study, tmp_path / "cut", ALONE), stop_in_round_two)
    resume(tmp_path / "cut", ALONE)
    assert models(tmp_path / "cut") == whole


@pytest.mark.long
@pytest.mark.parametrize(
    ("strategy", "kept"),
    [
        ("fedper", "personal/"),
        ("ditto", "personal-model/"),
        ("apfl", "personal-model/"),
        ("moon", "previous/"),
    ],
)
def test_what_a_site_keeps_for_itself_holds_nothing_frozen(
    strategy: str, kept: str, tiny_study: Any, tmp_path: Path
) -> None:
    study = study_from(tiny_study, **{"federation.strategy": strategy, "simulation.compare": False})
    simulate(SimulationRequest(study, tmp_path / "run", ALONE))
    layout = ModelContext.build(study, "cpu").layout
    trainable = layout.personal if strategy == "fedper" else (*layout.personal, *layout.shared)
    model = load_trained(tmp_path / "run", FEDERATED)
    assert model is not None
    for name in ("north", "south"):
        site = open_site(tmp_path / "run" / "sites" / name)
        state = SiteState(site.state_folder, study.digest, model.run)
        memory = state.after(study.federation.rounds)
        assert set(memory) == {kept + name for name in trainable}


def trained(root: Path, folders: list[Path], study: Study) -> Parameters:
    with open_grid(folders, study, ALONE) as grid:
        return run_federation(grid, study, root).parameters


@pytest.mark.long
def test_sharing_all_sends_the_frozen_numbers_too_and_trains_the_same_adapters(
    tiny_study: Any, tmp_path: Path
) -> None:
    adapters = study_from(tiny_study, **{"simulation.compare": False})
    simulate(SimulationRequest(adapters, tmp_path / "run", ALONE))
    folders = sorted((tmp_path / "run" / "sites").iterdir())
    few = trained(tmp_path / "few", folders, adapters)
    everything = with_changes(adapters, {"federation.share": "all"})
    more = trained(tmp_path / "more", folders, everything)
    context = ModelContext.build(everything, "cpu")
    assert set(more) == set(context.network.state_dict()) > set(few)
    assert digest({name: more[name] for name in few}) == digest(few)
