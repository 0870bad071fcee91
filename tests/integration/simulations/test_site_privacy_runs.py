"""Whole runs with privacy of sites."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.hospitals.table_sites import (
    ALONE,
    StoppedError,
    study_for,
    write_sites,
)

from wardround.common.parameters.arithmetic import difference
from wardround.common.parameters.schema import Parameters
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.server.rounds.loop import RoundFinished
from wardround.simulations.experiment.federation import open_grid, run_federation
from wardround.simulations.experiment.simulate import SimulationRequest, simulate

PRIVATE = {
    "evaluation.keep": "last",
    "privacy.mode": "site",
    "privacy.noise_multiplier": 0.5,
    "privacy.adaptive_clipping": True,
    "model.normalisation": "layer",
}


def run(root: Path, study: Study, cut_after: int = 0) -> Commit:
    def listen(event: RoundFinished) -> None:
        if event.record.round == cut_after:
            raise StoppedError

    folders = sorted(root.glob("sites/*")) or write_sites(root / "sites")
    with open_grid(folders, study, ALONE) as grid:
        run_federation(grid, study, root / "checkpoints", listen)
    return CheckpointStore(root / "checkpoints").load(study.federation.rounds)


def model_of(root: Path, study: Study) -> Parameters:
    return run(root, study).parameters


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedper"])
def test_the_same_study_ends_in_another_network_each_time(strategy: str, tmp_path: Path) -> None:
    study = study_for(strategy, **PRIVATE)
    first, second = (model_of(tmp_path / name, study) for name in ("one", "two"))
    assert difference(first, second) > 1e-4


def test_almost_no_noise_and_a_wide_clip_norm_give_the_plain_mean(tmp_path: Path) -> None:
    wide = {
        **PRIVATE,
        "privacy.noise_multiplier": 1e-9,
        "privacy.clip_norm": 1e3,
        "privacy.adaptive_clipping": False,
    }
    plain = study_for("fedavg", **{k: v for k, v in wide.items() if not k.startswith("privacy")})
    private = model_of(tmp_path / "private", study_for("fedavg", **wide))
    even = with_changes(plain, {"federation.aggregation": "mean"})
    assert difference(private, model_of(tmp_path / "plain", even)) < 1e-4


def test_a_resumed_run_goes_on_with_its_clip_norm(tmp_path: Path) -> None:
    study = study_for("fedavg", **PRIVATE)
    with pytest.raises(StoppedError):
        run(tmp_path, study, cut_after=2)
    halfway = CheckpointStore(tmp_path / "checkpoints").load(2)
    clip_norm = float(halfway.strategy["privacy/clip-norm"])
    assert clip_norm != 1.0
    end = run(tmp_path, study)
    assert end.progress.run == halfway.progress.run
    assert float(end.strategy["privacy/clip-norm"]) not in (1.0, clip_norm)


def test_the_report_and_the_command_line_say_how_weak_it_is(
    tiny_study: Any, wardround: Callable[..., Any], tmp_path: Path
) -> None:
    changes = {
        "evaluation.keep": "last",
        "privacy.mode": "site",
        "privacy.noise_multiplier": 1.0,
        "federation.rounds": 2,
    }
    study = with_changes(load_study(tiny_study.study), changes)
    (tmp_path / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    said = wardround("study", "privacy", tmp_path / "study.toml")
    assert said.code == 0, said.err
    assert "promised to each hospital" in said.out
    assert "few hospitals cannot hide one of them cheaply" in said.out
    report = simulate(SimulationRequest(study, tmp_path / "run", ALONE))
    page = report.read_text(encoding="utf-8")
    assert "What is promised to each hospital" in page
    assert "few hospitals cannot hide one of them cheaply" in page
    assert "The server sees every hospital&#39;s update without noise" in page
