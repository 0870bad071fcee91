"""Contributions from kept updates: the rounds again, with all sites and with some."""

from pathlib import Path

import pytest
from tests.support.hospitals.table_sites import ALONE, StoppedError, study_for, write_sites

from wardround.common.errors import ModelError
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.contributions import why_no_contributions
from wardround.common.study.study import Study
from wardround.server.rounds.loop import RoundFinished
from wardround.server.strategies.kept_updates import kept_rounds, read_start, read_updates
from wardround.simulations.experiment.federation import open_grid, run_federation
from wardround.simulations.experiment.testing import contributions
from wardround.simulations.experiment.testing.contributions import (
    Replay,
    Utility,
    block_lengths,
    contribution_rows,
    orders_for,
)

AGAIN = ("fedavgm", "fednova", "scaffold", "feddyn", "qfedavg")


def train(root: Path, study: Study, sites: int = 3, cut_after: int = 0) -> list[Path]:
    def listen(event: RoundFinished) -> None:
        if event.record.round == cut_after:
            raise StoppedError

    folders = sorted(root.glob("sites/*")) or write_sites(root / "sites", sites)
    with open_grid(folders, study, ALONE) as grid:
        run_federation(grid, study, root / "checkpoints", listen, updates=root / "updates")
    return folders


def last_model(root: Path) -> str:
    path = root / "checkpoints" / "round-00004" / "model.safetensors"
    return digest(load_model(path).parameters)


@pytest.mark.parametrize("strategy", AGAIN)
def test_all_updates_again_give_the_model_that_the_training_gave(
    strategy: str, tmp_path: Path
) -> None:
    study = study_for(strategy)
    folders = train(tmp_path, study)
    utility = Utility.of(folders, study)
    assert utility is not None
    told = [read_updates(tmp_path / "updates", number) for number in (1, 2, 3, 4)]
    replay = Replay.of(study, utility.context, told)
    points = replay.along(read_start(tmp_path / "updates"), [1, 3])
    assert digest(points[-1].model) == last_model(tmp_path)


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedadam"])
def test_shares_add_up_and_lower_is_better_of_a_loss(strategy: str, tmp_path: Path) -> None:
    study = study_for(strategy)
    folders = train(tmp_path, study)
    rows = list(contribution_rows(folders, study, tmp_path / "updates", 4))
    assert [row.site for row in rows] == ["site-0", "site-1", "site-2"]
    first = rows[0]
    assert (first.rounds, first.split, first.method) == (4, "validation", "exact")
    # The loss fell: that is an improvement, and the shares add up to it.
    assert sum(row.shapley for row in rows) == pytest.approx(first.start - first.end)
    assert first.start > first.end


def test_more_sites_than_all_subsets_of_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_for("fedavg")
    folders = train(tmp_path, study)
    exact = list(contribution_rows(folders, study, tmp_path / "updates", 4))
    monkeypatch.setattr(contributions, "MOST_EXACT", 2)
    monkeypatch.setattr(contributions, "_TOLERANCE", 0.0)
    drawn = list(contribution_rows(folders, study, tmp_path / "updates", 4))
    assert {row.method for row in drawn} == {"sampled"}
    assert sum(row.shapley for row in drawn) == pytest.approx(exact[0].start - exact[0].end)
    assert [row.leave_one_out for row in drawn] == [row.leave_one_out for row in exact]


def test_rounds_after_the_kept_model_contribute_nothing_to_it(tmp_path: Path) -> None:
    study = study_for("fedavg")
    folders = train(tmp_path, study)
    assert {row.rounds for row in contribution_rows(folders, study, tmp_path / "updates", 2)} == {2}
    assert not list(contribution_rows(folders, study, tmp_path / "updates", 0))


def test_a_site_that_was_not_asked_in_a_round_leaves_it_to_the_others(tmp_path: Path) -> None:
    study = study_for("fedavg", **{"federation.fraction": 0.5, "federation.minimum_sites": 1})
    folders = train(tmp_path, study)
    rows = list(contribution_rows(folders, study, tmp_path / "updates", 4))
    assert sum(row.shapley for row in rows) == pytest.approx(rows[0].start - rows[0].end)


def test_a_resumed_run_keeps_the_same_updates(tmp_path: Path) -> None:
    study = study_for("scaffold")
    train(tmp_path / "whole", study)
    with pytest.raises(StoppedError):
        train(tmp_path / "cut", study, cut_after=2)
    train(tmp_path / "cut", study)
    assert last_model(tmp_path / "cut") == last_model(tmp_path / "whole")
    for number in (1, 2, 3, 4):
        pairs = zip(
            read_updates(tmp_path / "cut" / "updates", number),
            read_updates(tmp_path / "whole" / "updates", number),
            strict=True,
        )
        assert all(digest(a.parameters) == digest(b.parameters) for a, b in pairs)


def test_more_rounds_are_not_kept_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.server.strategies import kept_updates

    study = study_for("fedavg")
    train(tmp_path / "all", study)
    size = sum(path.stat().st_size for path in (tmp_path / "all" / "updates").rglob("*.*"))
    monkeypatch.setattr(kept_updates, "_MEGABYTE", size // 64 // 2)  # the study allows 64
    folders = train(tmp_path / "some", study)
    updates = tmp_path / "some" / "updates"
    kept = kept_rounds(updates)
    assert kept in ((1,), (1, 2), (1, 2, 3))
    assert sum(path.stat().st_size for path in updates.rglob("*.*")) <= size / 2
    assert all(len(read_updates(updates, number)) == 3 for number in kept)
    rows = list(contribution_rows(folders, study, updates, 4))
    assert {row.rounds for row in rows} == {len(kept)}
    assert last_model(tmp_path / "some") == last_model(tmp_path / "all")


def test_a_model_that_does_not_fit_leaves_no_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.server.strategies import kept_updates

    monkeypatch.setattr(kept_updates, "_MEGABYTE", 0)
    study = study_for("fedavg")
    folders = train(tmp_path, study)
    assert kept_rounds(tmp_path / "updates") == ()
    assert not list(contribution_rows(folders, study, tmp_path / "updates", 4))


def test_a_disk_that_takes_no_updates_changes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.server.strategies import kept_updates

    study = study_for("fedavg")
    train(tmp_path / "whole", study)
    written: list[Path] = []

    def save(path: Path, *arguments: object, durable: bool) -> None:
        written.append(path)
        if len(written) > 5:
            msg = "no space left"
            raise ModelError(msg)
        save_model(path, *arguments, durable=durable)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(kept_updates, "save_model", save)
    folders = train(tmp_path / "full", study)
    assert last_model(tmp_path / "full") == last_model(tmp_path / "whole")
    assert kept_rounds(tmp_path / "full" / "updates") == (1,)
    rows = contribution_rows(folders, study, tmp_path / "full" / "updates", 4)
    assert {row.rounds for row in rows} == {1}


def test_a_damaged_update_leaves_contributions_untold(tmp_path: Path) -> None:
    study = study_for("fedavg")
    folders = train(tmp_path, study)
    (tmp_path / "updates" / "round-00002" / "00001.safetensors").write_bytes(b"damaged")
    assert not list(contribution_rows(folders, study, tmp_path / "updates", 4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "ditto"}, "a model of its own"),
        ({"strategy": "fedbn"}, "a model of its own"),
        ({"strategy": "cyclic"}, "in turn"),
        ({"strategy": "coordinate-median", "minimum_sites": 3}, "needs 3 hospitals"),
        ({"strategy": "flower:FedAvg"}, "cannot be repeated"),
        ({"buffer_size": 2}, "asynchronous"),
    ],
)
def test_why_contributions_cannot_be_told_is_said(changes: dict[str, object], words: str) -> None:
    study = study_for("fedavg", **{f"federation.{key}": value for key, value in changes.items()})
    assert words in why_no_contributions(study)


def test_a_private_study_keeps_no_single_updates() -> None:
    study = parse_study(
        {
            "study": {"name": "private", "task": "classification"},
            "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
            "model": {"network": "mlp", "features": []},
            "privacy": {"mode": "patient", "noise_multiplier": 1.0, "sampling_rate": 0.1},
        }
    )
    assert "must not learn what a single hospital's update does" in why_no_contributions(study)


def test_not_too_many_models_are_measured() -> None:
    assert block_lengths(13, 4) == [7, 6]
    assert block_lengths(3, 2) == [1, 1, 1]
    assert block_lengths(100, 8) == [100]
    assert block_lengths(100, 20) == [100]
    assert orders_for(20) == 20, "one a site"
    assert orders_for(27) == 27
    assert orders_for(64) == 4
    assert orders_for(64) * 64**2 < 20_000, "each model visits each site"
