"""Studies written in Python, strategies and the accountant by themselves, and the progress line."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wardround as wr
from wardround.common.study.loading import parse_study
from wardround.simulations.notebook.progress import showing

KEYS: dict[str, Any] = {"classes": ["no", "yes"], "size": (32, 32)}


def test_a_study_in_python_is_the_study_of_the_file(tmp_path: Path) -> None:
    study = wr.Study("spots", rounds=np.int64(5), learning_rate=0.01, seed=3, **KEYS)
    same = parse_study(
        {
            "study": {"name": "spots", "task": "classification"},
            "data": {"classes": ["no", "yes"], "size": [32, 32]},
            "model": {"network": "small-cnn"},
            "training": {"learning_rate": 0.01},
            "federation": {"rounds": 5, "seed": 3},
            "simulation": {"seed": 3},
        }
    )
    assert study.digest == same.digest
    assert study.to_toml() == same.to_toml()
    assert wr.load_study(study.save(tmp_path / "study.toml")) == study
    assert pickle.loads(pickle.dumps(study)) == study
    assert study.with_changes(rounds=2).federation.rounds == 2
    assert study.with_changes({"federation.rounds": 7}, network="resnet18").digest != study.digest
    assert isinstance(wr.load_study("heart-disease"), wr.Study)
    assert len(repr(study)) < 200
    assert "&lt;" not in study._repr_html_()


def test_a_budget_is_privacy_for_patients_unless_a_mode_is_said() -> None:
    study = wr.Study("private", epsilon=8, keep="last", **KEYS)
    assert study.privacy.mode == "patient"
    assert study.without_privacy().privacy.mode == "none"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "data.classes is missing"),
        ({**KEYS, "lr": 3}, "did you mean 'training.learning_rate'"),
        ({**KEYS, "strategy": "fedprx"}, "Did you mean 'fedprox'"),
        ({**KEYS, "network": "unet"}, "does not do classification"),
        ({**KEYS, "rounds": "many"}, "federation.rounds = 'many' cannot be used"),
        ({**KEYS, "options": {}}, r"key of \[federation\] and of \[simulation\]"),
        ({**KEYS, "data": "brain-tissue"}, "data is a section of the study"),
        ({**KEYS, "task": "captioning"}, "unknown task 'captioning'"),
    ],
)
def test_a_study_that_cannot_be_is_refused_as_a_study_file_is(
    keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(wr.StudyError, match=words):
        wr.Study("x", **keys)


def test_what_is_no_study_is_said() -> None:
    with pytest.raises(wr.StudyError, match="is built in: load it with load_study"):
        wr.Study("heart-disease")
    with pytest.raises(wr.InputError, match="cannot be read from int"):
        wr.load_study(3)  # type: ignore[arg-type]
    with pytest.raises(wr.InputError, match="cannot write"):
        wr.Study("x", **KEYS).save("/nowhere/at/all.toml")
    with pytest.raises(wr.StudyError, match=r"federation\.rounds = 0"):
        wr.Study("x", **KEYS).with_changes(rounds=0)


def updates(*values: float) -> list[dict[str, Any]]:
    return [{"w": np.full((2, 2), float(value)), "count": np.array(3)} for value in values]


def test_arrays_come_back_as_arrays_and_tensors_as_tensors() -> None:
    mean = wr.strategies.aggregate(updates(1, 2, 6), weights=[1, 1, 10])
    assert mean["w"] == pytest.approx(5.25)
    assert (type(mean["w"]), mean["count"]) == (np.ndarray, 3)
    network = torch.nn.Linear(2, 1)
    same = wr.strategies.aggregate([network, network.state_dict()])
    assert torch.equal(same["weight"], network.weight)


def test_robust_rules_withstand_a_liar_and_the_mean_does_not() -> None:
    lies = updates(1, 1.1, 0.9, 1, 1.05, -50)
    assert wr.strategies.aggregate(lies)["w"].max() < -5
    for rule in ("coordinate-median", "trimmed-mean", "krum", "multi-krum", "geometric-median"):
        assert wr.strategies.aggregate(lies, rule)["w"] == pytest.approx(1, abs=0.2), rule


def test_a_strategy_with_a_memory_remembers_its_rounds() -> None:
    server = wr.strategies.Aggregator({"w": torch.zeros(2)}, "fedavgm")
    first = server.step([{"w": torch.ones(2)}])["w"]
    second = server.step([{"w": first}])["w"]  # no site moves, and the momentum goes on
    assert float(second[0]) > float(first[0])
    assert torch.equal(server.model["w"], second)
    assert "mean of the sites' models" in server.description


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((updates(1), "fedavgg"), {}, "Did you mean 'fedavg'"),
        ((updates(1), "scaffold"), {}, "needs each site's control variate"),
        ((updates(1, 2), "fedavg"), {"weights": [1]}, "1 weights were given for 2"),
        ((updates(1, 2), "fedavg"), {"weights": [1, 0]}, "weight 2 is 0"),
        ((updates(1, 2), "krum"), {}, "too few for krum"),
        ((updates(1), "fedavg"), {"momentum": 1}, "unknown option of a strategy 'momentum'"),
        ((updates(1), "fedavgm"), {"server_momentum": 7}, "server_momentum = 7 cannot be used"),
        (([], "fedavg"), {}, "no update to combine"),
        (([np.ones(2)], "fedavg"), {}, "update 1 is ndarray"),
        (([{"w": np.ones(2)}, {"v": np.ones(2)}], "fedavg"), {}, "update 2 lacks 'w'"),
        (([{"w": np.ones(2)}, {"w": np.ones(3)}], "fedavg"), {}, r"shape \(3,\)"),
        (([{"w": "text"}], "fedavg"), {}, "w of update 1 is str"),
    ],
)
def test_updates_that_cannot_be_combined_are_refused_in_words(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(wr.WardroundError, match=words):
        wr.strategies.aggregate(*arguments, **options)


def test_the_accountant_answers_both_ways() -> None:
    spent = wr.privacy.epsilon(1.1, sampling_rate=0.1, steps=20)
    assert wr.privacy.steps_for(spent, 1.1, sampling_rate=0.1) == 20
    assert wr.privacy.steps_for(1e-3, 0.5) == 0
    assert wr.privacy.noise_for(spent, 1e-5, 0.1, 20) == pytest.approx(1.1, rel=2e-3)
    table = wr.privacy.trade_offs([8, 1], steps=10, sampling_rate=0.5, patients=20)
    assert list(table.noise_deviation * 10) == pytest.approx(list(table.noise_multiplier))
    plan = wr.privacy.plan_of_study("hippocampus-private")
    assert plan.epsilon <= float(wr.load_study("hippocampus-private").privacy.epsilon or 8)
    for wrong in (
        lambda: wr.privacy.epsilon(-1),
        lambda: wr.privacy.epsilon(1, delta=2),
        lambda: wr.privacy.steps_for(0, 1),
        lambda: wr.privacy.plan_of_study("heart-disease"),
    ):
        with pytest.raises(wr.InputError):
            wrong()


class Handle:
    def __init__(self, shown: list[Any]) -> None:
        self._shown = shown

    def update(self, bundle: Any, raw: bool) -> None:
        self._shown[-1] = bundle


def test_a_notebook_holds_one_line_escaped_and_a_broken_display_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []

    def display(bundle: Any, raw: bool, display_id: bool) -> Handle:
        shown.append(bundle)
        return Handle(shown)

    fake = types.ModuleType("IPython")
    fake.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    place = types.ModuleType("IPython.display")
    place.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", place)
    with showing(None, tmp_path) as watch:
        watch(wr.StageStarted("federated", 3))
        watch(wr.SiteFailed("federated", 1, "<b>north</b>", "ill"))
        for number in (1, 2, 3):
            watch(wr.RoundDone("federated", number, 3, "auroc", 0.5, 1, 0.1))
        assert len(shown) == 1
        assert "<progress" in shown[0]["text/html"]
        assert "&lt;b&gt;north" in shown[0]["text/html"]
    assert len(shown) == 1
    assert shown[0]["text/plain"].startswith("Finished in")
    place.display = lambda *_, **__: 1 / 0  # type: ignore[attr-defined]
    with showing(True, tmp_path) as watch:
        watch(wr.StageStarted("federated", 3))
    with showing(False, tmp_path) as watch:
        watch(wr.StageStarted("federated", 3))
    assert capsys.readouterr() == ("", "")


def test_elsewhere_a_line_a_round_is_written_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for progress in (None, True):
        with showing(progress, tmp_path) as watch:
            watch(wr.StageStarted("federated", 2))
            watch(wr.RoundDone("federated", 1, 2, "auroc", 0.5, 1, 0.1))
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines()[:2] == (
            ["training together", "training together: round 1 of 2, auroc 0.500"]
            if progress
            else []
        )
