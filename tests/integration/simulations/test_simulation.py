"""Whole simulated runs of tiny studies: what they leave, what they repeat, how they go on."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from wardround.client.data.cohorts import open_cohorts
from wardround.client.site.folder import open_site
from wardround.common.errors import RunError
from wardround.common.files.tables import read_table
from wardround.common.parameters.model_file import load_model
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, resume, simulate
from wardround.simulations.run_files.events import (
    Event,
    RoundDone,
    SiteFailed,
    StageStarted,
    Watch,
    nobody,
)
from wardround.simulations.run_files.folder import (
    MetricRow,
    SplitRow,
    TrafficRow,
    read_facts,
)

ONE_PROCESS = Machine(device="cpu", engine="in-process", threads=1)
POOL = Machine(device="cpu", engine="pool", workers=2, threads=1)
STACKED = Machine(device="cpu", engine="stacked", threads=1)
SITES = ["east", "north", "west"]
STAGES = ("federated", "local-north")


@pytest.fixture
def table_study(tmp_path: Path) -> Study:
    """Sixty patients of three hospitals; two numbers and a category tell who is ill."""
    generator = np.random.default_rng(5)
    lines = ["patient,age,pressure,sex,label,site"]
    for number in range(60):
        ill = number % 2
        age, pressure = generator.normal(60 + 8 * ill, 5), generator.normal(130 + 15 * ill, 8)
        sex = ("f", "m")[int(generator.integers(2))]
        site = SITES[number % 3]
        lines.append(f"p{number},{age:.1f},{pressure:.1f},{sex},{('well', 'ill')[ill]},{site}")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return parse_study(
        {
            "study": {"name": "table", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["well", "ill"],
                "covariates": [
                    {"name": "age", "mean": 60, "scale": 10},
                    {"name": "pressure", "mean": 130, "scale": 15},
                    {"name": "sex", "values": ["f", "m"]},
                ],
            },
            "model": {"network": "mlp", "features": [4], "normalisation": "none"},
            "training": {"batch_size": 4, "learning_rate": 0.01},
            "federation": {"rounds": 4},
            "evaluation": {"validation_fraction": 0.25, "test_fraction": 0.25},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "options": {"manifest": str(manifest)},
            },
        }
    )


PLAIN_RUN = """
import sys
from wardround.cli import main
sys.argv = ["wardround", "simulate", *sys.argv[1:], "--engine", "in-process", "--threads", "1"]
try: main()
except SystemExit as end: assert not end.code
sys.exit("torch._dynamo" in sys.modules)
"""


def run(study: Study, out: Path, machine: Machine = ONE_PROCESS, watch: Watch = nobody) -> Path:
    simulate(SimulationRequest(study, out, machine), watch)
    return out


def model(folder: Path, name: str = "federated") -> dict[str, torch.Tensor]:
    return load_model(folder / "models" / f"{name}.safetensors").parameters


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_table_study_leaves_a_complete_run_folder(table_study: Study, tmp_path: Path) -> None:
    events: list[Event] = []
    out = run(table_study, tmp_path / "run", watch=events.append)
    names = {path.name for path in out.iterdir()}
    assert names == {
        "assignment.csv",
        "checkpoints",
        "contributions.csv",
        "data-sheet.json",
        "data-sheet.md",
        "log.jsonl",
        "metrics.csv",
        "model-card.json",
        "model-card.md",
        "models",
        "pooled",
        "predictions.csv",
        "report.html",
        "run.lock",
        "run.json",
        "sites",
        "split.csv",
        "study.toml",
        "traffic.csv",
        "updates",
    }
    assert not list(out.rglob("*.part"))
    assert load_study(out / "study.toml") == table_study
    models = ["federated", "pooled", *(f"local-{site}" for site in SITES)]
    assert {path.stem for path in (out / "models").iterdir()} == set(models)
    facts = read_facts(out)
    assert (facts.status, facts.digest) == ("finished", table_study.digest)
    assert facts.seconds.keys() == {"data", "federated", "baselines", "test"}
    assert facts.parameters == sum(tensor.numel() for tensor in model(out).values())
    rounds = [e.round for e in events if isinstance(e, RoundDone) and e.stage == "federated"]
    assert rounds == [1, 2, 3, 4]
    stages = [e.stage for e in events if isinstance(e, StageStarted)]
    assert sorted(stages) == sorted(["data", "test", "report", *models])
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert sum("event=RoundDone stage=federated" in line["what"] for line in lines) == 4


def test_every_model_is_tested_on_every_site(table_study: Study, tmp_path: Path) -> None:
    out = run(table_study, tmp_path / "run")
    rows = read_table(out / "metrics.csv", MetricRow)
    kept = {(r.model, r.site) for r in rows if r.round == -1 and r.metric == "accuracy"}
    models = ["federated", "pooled", *(f"local-{site}" for site in SITES)]
    assert kept == {(name, site) for name in models for site in (*SITES, "all sites")}
    split = read_table(out / "split.csv", SplitRow)
    tested = {r.site: r.examinations for r in split if r.split == "test" and not r.class_name}
    for row in rows:
        if row.round == -1 and row.metric == "accuracy" and not row.class_name:
            assert row.support == tested.get(row.site, sum(tested.values()))


def test_every_round_is_measured_on_every_site(table_study: Study, tmp_path: Path) -> None:
    out = run(table_study, tmp_path / "run")
    rows = read_table(out / "metrics.csv", MetricRow)
    federated = [r for r in rows if r.model == "federated" and r.split == "validation"]
    seen = {(r.round, r.site) for r in federated if r.metric == "auroc" and not r.class_name}
    assert seen == {(n, site) for n in range(5) for site in (*SITES, "all sites")}
    traffic = read_table(out / "traffic.csv", TrafficRow)
    sent = [r for r in traffic if r.model == "federated"]
    assert {(r.round, r.site) for r in sent} == {(n, s) for n in range(1, 5) for s in SITES}
    assert all(r.bytes_up > 0 and r.bytes_down > 0 and r.updates > 0 for r in sent)


def test_accuracy_over_all_sites_is_the_sites_accuracies_weighted_by_their_patients(
    table_study: Study, tmp_path: Path
) -> None:
    out = run(table_study, tmp_path / "run")
    rows = [
        r
        for r in read_table(out / "metrics.csv", MetricRow)
        if (r.model, r.round, r.metric, r.class_name) == ("federated", -1, "accuracy", "")
    ]
    parts = [r for r in rows if r.site != "all sites"]
    (merged,) = [r for r in rows if r.site == "all sites"]
    weighted = sum(r.value * r.support for r in parts) / sum(r.support for r in parts)
    assert merged.value == pytest.approx(weighted)


def test_no_patient_is_at_two_sites_or_lost(table_study: Study, tmp_path: Path) -> None:
    out = run(with_changes(table_study, {"federation.rounds": 1}), tmp_path / "run")
    held = [
        {line.split(",")[0] for line in manifest.read_text().splitlines()[1:]}
        for manifest in sorted((out / "sites").glob("*/manifest.csv"))
    ]
    assert sum(len(part) for part in held) == len(set().union(*held)) == 60


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    table_study: Study, tmp_path: Path
) -> None:
    study = with_changes(table_study, {"simulation.compare": False})
    first, second = run(study, tmp_path / "1"), run(study, tmp_path / "2")
    assert same(model(first), model(second))
    other = run(with_changes(study, {"federation.seed": 1}), tmp_path / "3")
    assert not same(model(first), model(other))


def test_the_pool_reaches_the_very_model_of_a_single_process(
    table_study: Study, tmp_path: Path
) -> None:
    standalone, pooled = run(table_study, tmp_path / "1"), run(table_study, tmp_path / "2", POOL)
    for name in ("federated", "pooled", "local-east"):
        assert same(model(standalone, name), model(pooled, name)), name
    assert (standalone / "metrics.csv").read_bytes() == (pooled / "metrics.csv").read_bytes()


def test_a_stack_reaches_the_model_of_a_single_process_and_leaves_the_same_folder(
    table_study: Study, tmp_path: Path
) -> None:
    study = with_changes(table_study, {"simulation.compare": False, "federation.rounds": 2})
    alone, stacked = (
        run(study, tmp_path / name, machine)
        for name, machine in (("1", ONE_PROCESS), ("2", STACKED))
    )
    assert all(
        torch.allclose(weight, model(stacked)[name], rtol=0, atol=1e-5)
        for name, weight in model(alone).items()
    )
    one, other = (
        {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
        for out in (alone, stacked)
    )
    assert one == other
    assert read_facts(stacked).environment["engine"] == "stacked"


def test_a_saved_split_gives_the_same_sites_again(table_study: Study, tmp_path: Path) -> None:
    drawn = with_changes(
        table_study,
        {
            "simulation.split": "dirichlet",
            "simulation.sites": 2,
            "simulation.seed": 3,
            "simulation.compare": False,
            "federation.rounds": 1,
        },
    )
    first = run(drawn, tmp_path / "1")
    other = with_changes(drawn, {"simulation.seed": 4})
    simulate(
        SimulationRequest(other, tmp_path / "2", ONE_PROCESS, assignment=first / "assignment.csv")
    )
    for name in ("split.csv", "assignment.csv", "sites/hospital-1/manifest.csv"):
        assert (first / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_run_folder_says_who_was_tested(table_study: Study, tmp_path: Path) -> None:
    study = with_changes(table_study, {"simulation.compare": False, "federation.rounds": 1})
    out = run(study, tmp_path / "run")
    with (out / "assignment.csv").open(encoding="utf-8") as stream:
        said = {(row["site"], row["split"], row["patient"]) for row in csv.DictReader(stream)}
    found = {
        (name, cohort.split, examination.patient)
        for name in SITES
        for cohorts in [open_cohorts(open_site(out / "sites" / name), study)]
        for cohort in (cohorts.train, cohorts.validation, cohorts.test)
        for examination in cohort.examinations
    }
    assert said == found
    assert {split for _, split, _ in said} == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(2))
def test_hospitals_of_three_to_eighteen_patients_train_and_test(
    table_study: Study, tmp_path: Path, seed: int
) -> None:
    manifest = tmp_path / "manifest.csv"
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()
    sizes = {"few": 3, "ten": 10, "fourteen": 14, "eighteen": 18}
    sites = [site for site, size in sizes.items() for _ in range(size)]
    placed = [f"{row.rpartition(',')[0]},{site}" for row, site in zip(rows, sites, strict=False)]
    manifest.write_text("\n".join([header, *placed]) + "\n", encoding="utf-8")
    changes = {"simulation.compare": False, "simulation.seed": seed, "federation.rounds": 1}
    study = with_changes(
        table_study,
        {**changes, "evaluation.validation_fraction": 0.15, "evaluation.test_fraction": 0.15},
    )
    out = run(study, tmp_path / "run")
    table = read_table(out / "split.csv", SplitRow)
    assert all(row.patients for row in table if not row.class_name)
    assert all(row.patients for row in table if row.site in ("fourteen", "eighteen"))


# --- Stopped runs --------------------------------------------------------------
def stop_after(stage: str, number: int) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if isinstance(event, RoundDone) and (event.stage, event.round) == (stage, number):
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize(
    ("machine", "stage"),
    [
        (ONE_PROCESS, "federated"),
        (POOL, "federated"),
        *(pytest.param(one, "local-north", marks=pytest.mark.long) for one in (ONE_PROCESS, POOL)),
        (STACKED, "federated"),  # a baseline of one site is not stacked
    ],
    ids=lambda one: one.engine if isinstance(one, Machine) else one,
)
def test_a_stopped_run_goes_on_to_the_very_models_it_would_have_had(
    table_study: Study, tmp_path: Path, machine: Machine, stage: str
) -> None:
    whole = run(table_study, tmp_path / "whole", STACKED if machine is STACKED else ONE_PROCESS)
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(table_study, out, machine, stop_after(stage, 2))
    assert read_facts(out).status == "interrupted"
    assert "table" in (out / "report.html").read_text(encoding="utf-8")
    events: list[Event] = []
    resume(out, machine, events.append)
    assert read_facts(out).status == "finished"
    if stage == "federated":
        done = [e.round for e in events if isinstance(e, RoundDone) and e.stage == "federated"]
        assert done == [3, 4], "rounds 1 and 2 are not trained again"
    for path in (whole / "models").glob("*.safetensors"):
        assert same(model(whole, path.stem), model(out, path.stem)), path.stem
    assert (whole / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()


def test_resuming_a_finished_run_trains_nothing_and_keeps_its_models(
    table_study: Study, tmp_path: Path
) -> None:
    out = run(table_study, tmp_path / "run")
    metrics = (out / "metrics.csv").read_bytes()
    events: list[Event] = []
    resume(out, ONE_PROCESS, events.append)
    assert not [event for event in events if isinstance(event, RoundDone)]
    assert (out / "metrics.csv").read_bytes() == metrics


def test_a_run_that_fails_says_so_and_leaves_its_report(table_study: Study, tmp_path: Path) -> None:
    changes = {"training.learning_rate": 1e9, "training.optimiser": "sgd"}
    hopeless = with_changes(table_study, changes)
    events: list[Event] = []
    with pytest.raises(RunError, match=r"needs 1.*training loss.*training\.learning_rate"):
        run(hopeless, tmp_path / "run", watch=events.append)
    assert read_facts(tmp_path / "run").status == "failed"
    assert (tmp_path / "run" / "report.html").exists()
    assert not [event for event in events if isinstance(event, SiteFailed)], "no round was done"


# --- Images --------------------------------------------------------------------
def test_an_image_study_learns_to_tell_its_classes_apart(tiny_study, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # conftest's TinyStudy
    study = with_changes(
        load_study(tiny_study.study),
        {"federation.rounds": 6, "training.learning_rate": 0.01, "simulation.compare": False},
    )
    out = run(study, tmp_path / "run")
    rows = read_table(out / "metrics.csv", MetricRow)
    (value,) = [
        r.value
        for r in rows
        if (r.site, r.metric, r.round, r.class_name) == ("all sites", "auroc", -1, "")
    ]
    assert value == 1.0
    with np.load(out / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape[1:] == (16, 16)
        assert set(samples["site"].tolist()) == {"north", "south"}
    assert (out / "report.html").stat().st_size > 10_000


def test_a_plain_run_does_not_import_torchs_compiler(tiny_study, tmp_path: Path) -> None:
    words = (str(tiny_study.study), "--out", str(tmp_path / "run"), "--quiet")
    done = subprocess.run([sys.executable, "-c", PLAIN_RUN, *words], check=False)
    assert done.returncode == 0
