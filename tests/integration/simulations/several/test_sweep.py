"""A sweep through its own front door, over twenty small pictures."""

import csv
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed: make install")

from wardround.common.errors import InputError, RunError
from wardround.common.study.loading import load_study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.sweeps import sweep as sweeping
from wardround.simulations.sweeps.folder import Trial
from wardround.simulations.sweeps.journal import Journal
from wardround.simulations.sweeps.search_space import parse_parameters
from wardround.simulations.sweeps.sweep import SweepRequest, resume_sweep, sweep

LEARNING_RATE = "training.learning_rate=1e-4..1e-1:log"
SHORT = "training.lr=1e-4..1e-1:log"
BATCH_SIZE = "training.batch_size=2,4"
ALONE = Machine(engine="in-process", threads=1)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def request(tiny_study, out: Path, trials: int, **more: object) -> SweepRequest:
    study = load_study(tiny_study.study)
    parameters = more.pop("parameters", (LEARNING_RATE, BATCH_SIZE))
    return SweepRequest(study, out, parameters, trials, machine=ALONE, **more)


def nobody(*_: object) -> None:
    pass


def no_training(monkeypatch: pytest.MonkeyPatch, score: Callable[[dict], float]) -> list[dict]:
    """Let a trial score what a function of its values says; return the list of what was tried."""
    tried: list[dict] = []

    def train(self: object, sites: object, draw: object) -> float:
        tried.append(draw.changes)
        return score(draw.changes)

    monkeypatch.setattr(sweeping._Sweep, "_train", train)
    return tried


@pytest.mark.long
def test_three_trials_leave_a_table_a_study_and_a_page(
    tiny_study, wardround: Callable[..., object], tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    said = wardround(
        *("sweep", tiny_study.study, "--param", SHORT, "--param", BATCH_SIZE),
        *("--trials", 3, "--out", out, "--engine", "in-process"),
    )
    assert said.code == 0, said.err
    table = rows(out)
    assert [row["trial"] for row in table] == ["1", "2", "3"]
    assert {row["status"] for row in table} == {"finished"}
    assert "trial 3 of 3" in said.err
    assert "training.lr was read as training.learning_rate." in " ".join(said.out.split())
    best = max(table, key=lambda row: float(row["value"]))
    study = load_study(out / "best-study.toml")
    assert study.training.batch_size == int(best["training.batch_size"])
    assert study.training.learning_rate == pytest.approx(
        float(best["training.learning_rate"]), rel=1e-3
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    addresses = page.replace("http://www.w3.org/2000/svg", "")
    assert not any(link in addresses for link in ("http:", "https:", "src=", "<link"))
    assert page.count('<figure class="chart">') == 3  # the course, and one a parameter
    assert all(page.count(f", trial {n}</title>") == 2 for n in (1, 2, 3))
    assert f"wardround simulate {out}/best-study.toml" in page
    assert "training.lr was read as training.learning_rate." in page
    assert "CANARY" not in page + said.out + said.err
    # No trial has looked at the test patients, and none leaves its models behind.
    logs = [path.read_text(encoding="utf-8") for path in out.glob("trials/*/log.jsonl")]
    assert len(logs) == 3
    assert not any("stage=test" in log for log in logs)
    assert not list(out.glob("trials/*/checkpoints"))


def test_a_resumed_sweep_adds_trials_and_repeats_none(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = no_training(monkeypatch, lambda changes: changes["training.learning_rate"])
    whole = sweep(request(tiny_study, tmp_path / "whole", 12), nobody)
    at_once = list(tried)
    tried.clear()
    sweep(request(tiny_study, tmp_path / "parts", 7), nobody)
    assert tried == at_once[:7]
    tried.clear()
    parts = resume_sweep(tmp_path / "parts", 12, ALONE, nobody)
    assert tried == at_once[7:]
    assert [t.changes for t in parts.trials] == [t.changes for t in whole.trials]
    assert [t.value for t in parts.trials] == [t.value for t in whole.trials]
    assert resume_sweep(tmp_path / "parts", None, ALONE, nobody).trials == parts.trials
    assert tried == at_once[7:]


def test_a_sweep_that_has_had_its_trials_is_not_changed_by_resume(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch, lambda changes: changes["training.learning_rate"])
    out = tmp_path / "sweep"
    done = sweep(request(tiny_study, out, 3), nobody)
    # Optuna notes in its journal that it was opened.
    kept = [p for p in out.rglob("*") if p.is_file() and p.name != "trials.journal"]
    before = [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in kept]
    assert resume_sweep(out, None, ALONE, nobody).trials == done.trials
    with pytest.raises(InputError, match="has had 3 trials: --trials 2 is fewer"):
        resume_sweep(out, 2, ALONE, nobody)
    assert [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in kept] == before


def test_an_interrupted_trial_is_trained_again_with_its_values(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def score(changes: dict) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return changes["training.learning_rate"]

    tried = no_training(monkeypatch, score)
    out = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        sweep(request(tiny_study, out, 3), nobody)
    assert [row["trial"] for row in rows(out)] == ["1"]
    resume_sweep(out, None, ALONE, nobody)
    assert [row["trial"] for row in rows(out)] == ["1", "2", "3"]
    assert tried[1] == tried[2]
    assert len(tried) == 4


def test_a_trial_whose_process_was_killed_is_drawn_again(tiny_study, tmp_path: Path) -> None:
    space = parse_parameters([LEARNING_RATE], load_study(tiny_study.study))
    at_work = Journal(tmp_path / "journal", space, 0, higher_is_better=True).draw()
    journal = Journal(tmp_path / "journal", space, 0, higher_is_better=True)
    journal.forget_unfinished()
    again = journal.draw()
    assert (again.number, again.changes) == (at_work.number, at_work.changes) == (1, again.changes)
    again.finish(0.5, seconds=1.0)
    assert [trial.value for trial in journal.trials()] == [0.5]


def test_the_search_finds_the_good_end_of_a_range(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch, lambda changes: -abs(changes["training.learning_rate"] - 0.03))
    found = sweep(request(tiny_study, tmp_path / "sweep", 25), nobody)
    assert found.best is not None
    assert found.best.changes["training.learning_rate"] == pytest.approx(0.03, abs=0.01)


def test_a_metric_that_should_fall_is_searched_downwards(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch, lambda changes: changes["training.learning_rate"])
    found = sweep(request(tiny_study, tmp_path / "sweep", 4, metric="loss"), nobody)
    assert found.best is not None
    assert found.best.value == min(trial.value for trial in found.trials)
    assert (
        tomllib.loads((tmp_path / "sweep" / "best-study.toml").read_text())["evaluation"]["metric"]
        == "loss"
    )


def test_equal_values_are_not_trained_twice(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = no_training(monkeypatch, lambda changes: changes["federation.rounds"])
    coarse = "federation.rounds=1..2"  # a range, of which two values are all there are
    few = request(tiny_study, tmp_path / "sweep", 6, parameters=(coarse,))
    trials = sweep(few, nobody).trials
    assert len(trials) == 6
    assert len(tried) == 2
    repeated = [trial for trial in trials if trial.reason]
    assert len(repeated) == 4
    for trial in repeated:
        assert trial.value == trial.changes["federation.rounds"]


def test_each_combination_of_lists_is_tried_before_any_is_repeated_and_then_the_sweep_ends(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = no_training(monkeypatch, lambda changes: changes["training.batch_size"])
    rates = "training.learning_rate=0.001,0.01,0.1"
    out = tmp_path / "sweep"
    sweep(request(tiny_study, out, 4, parameters=(rates, BATCH_SIZE)), nobody)
    contents = resume_sweep(out, 20, ALONE, nobody)
    assert len({tuple(sorted(changes.items())) for changes in tried[:4]}) == 4
    assert len({tuple(sorted(changes.items())) for changes in tried}) == len(tried) == 6
    assert len(contents.trials) == contents.facts.trials == 6


def test_a_study_without_validation_patients_is_refused_before_the_first_trial(
    tiny_study, tmp_path: Path, wardround: Callable[..., object]
) -> None:
    text = tiny_study.manifest.read_text().replace("validation", "train")
    tiny_study.manifest.write_text(text, encoding="utf-8")
    out = tmp_path / "sweep"
    said = wardround(
        *("sweep", tiny_study.study, "--param", BATCH_SIZE, "--out", out),
        *("--set", "evaluation.validation_fraction=0"),
    )
    assert said.code == 2
    assert "no site has validation patients" in said.err
    assert not out.exists()


def test_the_best_study_has_the_rounds_of_the_study_where_the_search_had_fewer(
    tiny_study, tmp_path: Path, wardround: Callable[..., object]
) -> None:
    own = load_study(tiny_study.study).federation.rounds
    out = tmp_path / "sweep"
    said = wardround(
        *("sweep", tiny_study.study, "--param", BATCH_SIZE, "--set", "federation.rounds=1"),
        *("--out", out, "--engine", "in-process", "--threads", 1),
    )
    assert said.code == 0, said.err
    assert load_study(out / "study.toml").federation.rounds == 1
    assert load_study(out / "best-study.toml").federation.rounds == own > 1
    assert f"has the {own} rounds of the study; the trials had 1" in " ".join(said.out.split())


def test_a_failed_trial_is_a_row_and_the_sweep_goes_on(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(changes: dict) -> float:
        if changes["training.batch_size"] == 4:
            msg = "it diverged."
            raise RunError(msg)
        return 0.5

    no_training(monkeypatch, score)
    out = tmp_path / "sweep"
    few = request(tiny_study, out, 6, parameters=("training.batch_size=2,4",))
    trials = sweep(few, nobody).trials
    assert {trial.status for trial in trials} == {"finished", "failed"}
    assert any("it diverged." in row["reason"] for row in rows(out))


def test_a_sweep_in_which_nothing_works_ends_early(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(changes: dict) -> float:
        msg = "it diverged."
        raise RunError(msg)

    tried = no_training(monkeypatch, score)
    with pytest.raises(RunError, match="the first 3 trials failed"):
        sweep(request(tiny_study, tmp_path / "sweep", 20), nobody)
    assert len(tried) == 3


def test_a_trial_worse_than_the_median_is_stopped_early(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.simulations.sweeps.score import Pruned

    count = 0

    def train(self: object, sites: object, draw: object) -> float:
        nonlocal count
        count += 1
        level = 0.9 if count <= 5 else 0.1
        for number in range(4):
            draw.report(number, level)
            if draw.is_hopeless():
                raise Pruned
        return level

    monkeypatch.setattr(sweeping._Sweep, "_train", train)
    trials = sweep(request(tiny_study, tmp_path / "sweep", 6), nobody).trials
    assert [trial.status for trial in trials] == ["finished"] * 5 + ["stopped early"]
    assert trials[-1].value == 0.1
    assert trials[-1].rounds < 3


def test_a_hopeless_trial_ends_in_the_middle_of_its_rounds(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping.Draw, "is_hopeless", lambda _: True)
    (trial,) = sweep(request(tiny_study, tmp_path / "sweep", 1), nobody).trials
    assert trial.status == "stopped early"
    assert [number for number, _ in trial.curve] == [0]  # the study has two rounds
    assert 0 <= trial.value <= 1
    log = (tmp_path / "sweep" / "trials" / "0001" / "log.jsonl").read_text(encoding="utf-8")
    assert log.count("event=RoundDone") == 1


def test_each_trial_is_told_once(
    tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch, lambda changes: 0.5)
    told: list[Trial] = []
    sweep(request(tiny_study, tmp_path / "sweep", 3), lambda trial, _: told.append(trial))
    assert [trial.number for trial in told] == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "said_of"),
    [
        (["--param", "training.learn_rate=1..2", "--out", "OUT"], "training.learning_rate"),
        (["--out", "OUT"], "nothing to vary"),
        (["--param", BATCH_SIZE], "--out"),
        (["--param", BATCH_SIZE, "--metric", "aurok", "--out", "OUT"], "auroc"),
        (["--resume", "OUT"], "a study"),
    ],
)
def test_a_refused_sweep_leaves_nothing(
    tiny_study, wardround: Callable[..., object], tmp_path: Path, words: list[str], said_of: str
) -> None:
    out = tmp_path / "sweep"
    said = wardround("sweep", tiny_study.study, *(str(out) if w == "OUT" else w for w in words))
    assert said.code == 2
    assert said_of in said.err
    assert not out.exists()


def test_a_folder_without_a_sweep_cannot_be_resumed(
    wardround: Callable[..., object], tmp_path: Path
) -> None:
    said = wardround("sweep", "--resume", tmp_path)
    assert said.code == 2
    assert "holds no sweep" in said.err
