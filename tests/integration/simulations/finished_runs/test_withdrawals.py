"""A site that joined a simulated run late leaves it: the model of a run that never had it."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.stage import CANARY, bits_of, table_study
from tests.support.studies.tiny_study import Said

from wardround.common.errors import InputError, RunError, StudyError
from wardround.common.files.lock import held_alone
from wardround.common.security.withdrawal.certificate import CERTIFICATE_FILE, read_certificate
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate
from wardround.simulations.experiment.testing.backdoor import BACKDOOR_SUCCESS, backdoor_rows
from wardround.simulations.experiment.training import load_trained
from wardround.simulations.experiment.withdrawal import (
    WithdrawalRequested,
    plan_of_run,
    withdraw,
)
from wardround.simulations.run_files.events import RoundDone
from wardround.simulations.run_files.folder import ALL_SITES, value_of

ONE_PROCESS = Machine(device="cpu", engine="in-process", threads=1)
SITES = ("north", "south", "west")
LATE, DONE, ROUNDS = 5, 10, 15


def patients_of(site: str) -> list[str]:
    return [f"{CANARY}{number}" for number in range(60) if SITES[number // 2 % 3] == site]


def manifest_of(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Write sixty patients of three sites, some left out; the others are who they were."""
    generator, place = np.random.default_rng(0), folder / f"without-{len(without)}.csv"
    with place.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "site", "a", "b"])
        for number in range(60):
            a, b = generator.normal(loc=number % 2, size=2)
            split = ("train", "train", "train", "validation", "test")[number // 6 % 5]
            name = f"{CANARY}{number}"
            if name not in without:
                writer.writerow([name, number % 2, split, SITES[number // 2 % 3], a, b])
    return place


def study_of(manifest: Path, **changes: object) -> Study:
    study = table_study("leaving", manifest, rounds=ROUNDS)
    said = {key.replace("__", "."): value for key, value in changes.items()}
    return with_changes(study, {"evaluation.keep": "best", **said})


def run(study: Study, out: Path, until: int = ROUNDS) -> Path:
    """Simulate a study, up to a round as if somebody had stopped it there."""

    def watch(event: object) -> None:
        if isinstance(event, RoundDone) and event.round == until < ROUNDS:
            raise KeyboardInterrupt

    try:
        simulate(SimulationRequest(study, out, ONE_PROCESS), watch)
    except KeyboardInterrupt:
        assert until < ROUNDS
    return out


def model_of(out: Path) -> dict[str, bytes]:
    return bits_of(out / "models" / "federated.safetensors")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of 15 rounds, stopped after the tenth; west takes part from round 5 on."""
    study = study_of(manifest_of(tmp_path), simulation__late={"west": LATE})
    return run(study, tmp_path / "run", DONE)


def test_a_late_site_that_leaves_leaves_the_model_of_a_run_without_it(
    stopped: Path, tmp_path: Path
) -> None:
    asked = WithdrawalRequested(stopped, "west", tmp_path / "repeat", machine=ONE_PROCESS)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    plan = plan_of_run(asked)
    assert (plan.first_round, plan.after_round, plan.done, plan.repeated) == (5, 4, 10, 11)
    assert plan.is_exact
    assert plan.seconds is not None
    assert not (tmp_path / "repeat").exists(), "a plan changes nothing"
    found = withdraw(asked)
    without = manifest_of(tmp_path, tuple(patients_of("west")))
    reference = run(study_of(without), tmp_path / "reference")
    assert model_of(tmp_path / "repeat") == model_of(reference)
    said, parent = found.said, load_study(stopped / "study.toml")
    assert (said.checkpoint.round, said.repeat.rounds, said.parent.rounds) == (4, 15, 10)
    assert said.parent.study == parent.digest != said.repeat.study
    repeats = load_study(tmp_path / "repeat" / "study.toml").study.repeats
    assert repeats is not None
    assert (repeats.parent, repeats.after_round) == (parent.digest, 4)
    assert {p: p.read_bytes() for p in before} == before, "the run that is repeated stays"
    for site in ("north", "south"):
        log = (stopped / "sites" / site / "audit" / "log.jsonl").read_bytes()
        after = (tmp_path / "repeat" / "sites" / site / "audit" / "log.jsonl").read_bytes()
        assert after.startswith(log), "what was said stays"
        assert len(after) > len(log), "and more is added"
    assert not (tmp_path / "repeat" / "sites" / "west").exists()


def test_a_repeat_that_was_stopped_goes_on_to_the_same_model(stopped: Path, tmp_path: Path) -> None:
    asked = WithdrawalRequested(stopped, "west", tmp_path / "repeat", machine=ONE_PROCESS)

    def watch(event: object) -> None:
        if isinstance(event, RoundDone) and event.round == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        withdraw(asked, watch)
    assert not (tmp_path / "repeat" / CERTIFICATE_FILE).exists()
    withdraw(asked)
    whole = WithdrawalRequested(stopped, "west", tmp_path / "whole", machine=ONE_PROCESS)
    withdraw(whole)
    assert model_of(tmp_path / "repeat") == model_of(tmp_path / "whole")


def test_patients_who_leave_are_in_no_round_of_the_new_model(stopped: Path, tmp_path: Path) -> None:
    gone = tuple(patients_of("west")[:3])
    asked = WithdrawalRequested(
        stopped, "west", tmp_path / "repeat", patients=gone, machine=ONE_PROCESS
    )
    found = withdraw(asked)
    without = manifest_of(tmp_path, gone)
    reference = run(study_of(without, simulation__late={"west": LATE}), tmp_path / "reference")
    assert model_of(tmp_path / "repeat") == model_of(reference)
    assert found.without == "patients"
    text = (tmp_path / "repeat" / CERTIFICATE_FILE).read_text()
    assert CANARY not in text, "a certificate names no patient"
    manifest = (tmp_path / "repeat" / "sites" / "west" / "manifest.csv").read_text()
    assert not [name for name in gone if f"{name}," in manifest]


@pytest.mark.parametrize(
    "changes",
    [
        {"federation__strategy": "fedadam"},
        pytest.param(
            {"federation__strategy": "fedavgm", "federation__ema": 0.5, "evaluation__keep": "last"},
            marks=pytest.mark.long,
        ),
        {"federation__strategy": "fedper"},
        pytest.param({"federation__compression": "int8"}, marks=pytest.mark.long),
    ],
    ids=["adam", "mean of models", "personal part", "compressed"],
)
def test_what_server_and_sites_remember_is_as_if_the_site_had_never_been_there(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    model: dict[str, object] = {"federation__rounds": 5}
    late = study_of(manifest_of(tmp_path), simulation__late={"west": 3}, **model, **changes)
    run(late, tmp_path / "run")
    asked = WithdrawalRequested(tmp_path / "run", "west", tmp_path / "new", machine=ONE_PROCESS)
    plan = plan_of_run(asked)
    keeps = {"fedper", "int8"} & {str(value) for value in changes.values()}
    assert plan.after_round == (0 if keeps else 2)
    assert any("keeps a part" in reason for reason in plan.why) == bool(keeps)
    withdraw(asked)
    without = study_of(manifest_of(tmp_path, tuple(patients_of("west"))), **model, **changes)
    run(without, tmp_path / "reference")
    assert model_of(tmp_path / "new") == model_of(tmp_path / "reference")


def test_a_private_repeat_is_charged_again_and_calls_itself_not_bit_equal(tmp_path: Path) -> None:
    private = {
        "privacy__mode": "patient",
        "privacy__noise_multiplier": 1.0,
        "privacy__delta": 1e-5,
        "privacy__sampling_rate": 0.5,
        "evaluation__keep": "last",
        "federation__rounds": 3,
        "simulation__late": {"west": 2},
    }
    run(study_of(manifest_of(tmp_path), **private), tmp_path / "run")
    asked = WithdrawalRequested(tmp_path / "run", "west", tmp_path / "new", machine=ONE_PROCESS)
    found = withdraw(asked)
    assert not found.said.is_exact
    assert any("charged" in reason for reason in found.said.why)
    ledger = Path("sites", "north", "ledger", "ledger.jsonl")
    spent = (tmp_path / "run" / ledger).read_bytes()
    after = (tmp_path / "new" / ledger).read_bytes()
    assert after.startswith(spent)
    assert len(after) > len(spent)


def test_the_command_says_what_it_will_do_and_its_certificate_is_checked_offline(
    tmp_path: Path, wardround: Callable[..., Said]
) -> None:
    study = study_of(manifest_of(tmp_path), federation__rounds=3, simulation__late={"west": 3})
    run(study, tmp_path / "run")
    words = (tmp_path / "run", "--site", "west", "--engine", "in-process", "--threads", 1)
    planned = wardround("withdraw", *words, "--plan")
    assert "west has numbers in the run since round 3" in planned.out
    assert "Training goes on from the commit of round 2: 1 rounds" in planned.out
    done = wardround("withdraw", *words, "--out", tmp_path / "new", "--json")
    assert done.code == 0, done.err
    certificate = Path(json.loads(done.out)["certificate"])
    model, old = (tmp_path / p / "models" / "federated" for p in ("new", "run"))
    keys = ("--server-key", tmp_path / "new" / "signing" / "server.pub")
    verify = ("model", "verify-withdrawal", certificate, "--model", model, *keys)
    said = wardround(*verify)
    assert said.code == 0, said.err
    assert "Bit-identical to a run that never had it" in said.out
    assert wardround(*verify[:3], "--revoked", old).code == 1
    assert wardround(*verify[:3], "--revoked", model).code == 0
    other = wardround(*verify[:3], "--model", old)
    assert other.code != 0
    assert "not the one of the certificate" in other.err
    content = bytearray(certificate.read_bytes())
    content[len(content) // 2] ^= 1
    certificate.write_bytes(content)
    assert "was changed after it was signed" in wardround(*verify).err


def test_who_was_not_in_a_run_cannot_leave_it(stopped: Path, tmp_path: Path) -> None:
    asked = WithdrawalRequested(stopped, "east", tmp_path / "new")
    with pytest.raises(InputError, match="no round of the run has a number of 'east'"):
        plan_of_run(asked)
    with pytest.raises(InputError, match="Did you mean 'west'"):
        plan_of_run(replace(asked, site="West"))
    assert not (tmp_path / "new").exists()
    used = WithdrawalRequested(stopped, "west", stopped, machine=ONE_PROCESS)
    with pytest.raises(InputError, match="holds another run"):
        withdraw(used)


def test_patients_who_are_none_of_the_sites_make_no_repeat(stopped: Path, tmp_path: Path) -> None:
    for patients in ((f"{CANARY}nobody",), (patients_of("west")[0], patients_of("north")[0])):
        asked = WithdrawalRequested(stopped, "west", tmp_path / "new", patients, ONE_PROCESS)
        with pytest.raises(InputError, match=r"1 of \d patients .* are none of 'west'") as error:
            withdraw(asked)
        assert CANARY not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_folder_of_another_withdrawal_gives_no_certificate_for_this_one(
    stopped: Path, tmp_path: Path
) -> None:
    one, other, *_ = patients_of("west")
    asked = WithdrawalRequested(stopped, "west", tmp_path / "new", (one,), ONE_PROCESS)
    first = withdraw(asked)
    for patients in ((other,), (one, other), ()):
        with pytest.raises(InputError, match="holds another run"):
            withdraw(replace(asked, patients=patients))
    shorter = run(study_of(manifest_of(tmp_path), training__local_steps=2), tmp_path / "other", 3)
    with pytest.raises(InputError, match="holds another run"):
        withdraw(replace(asked, run=shorter))
    assert withdraw(asked).said.model == first.said.model, "the same command is the same one"


def test_a_second_process_does_not_take_away_what_the_first_writes(
    stopped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    out.mkdir()
    with held_alone(out), pytest.raises(RunError, match="another process works on"):
        withdraw(WithdrawalRequested(stopped, "west", out, machine=ONE_PROCESS))
    assert out.is_dir()


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ({"east": 2}, "east"),
        ({"west": 99}, "round 99"),
        (dict.fromkeys(SITES, 2), "round 1 without a site"),
    ],
)
def test_a_late_site_is_one_of_the_sites_and_comes_in_a_round(
    tmp_path: Path, late: dict[str, int], said: str
) -> None:
    study = study_of(manifest_of(tmp_path), simulation__late=late)
    with pytest.raises(StudyError, match=said):
        run(study, tmp_path / "run")


def test_a_certificate_reads_back_as_it_was_written(stopped: Path, tmp_path: Path) -> None:
    asked = WithdrawalRequested(stopped, "west", tmp_path / "new", machine=ONE_PROCESS)
    found = withdraw(asked)
    assert read_certificate(tmp_path / "new" / CERTIFICATE_FILE) == found


@pytest.mark.long
def test_a_backdoor_of_the_site_that_left_falls_to_chance(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images[:360].reshape(-1, 8, 8) / 16).astype(np.float32)
    np.save(tmp_path / "digits.npy", pixels)
    rows = [f"p{i},digits.npy#{i},{labels[i]},site{i % 3 + 1}" for i in range(360)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["patient,image,label,site", *rows]) + "\n")
    adversary = {"kind": "backdoor", "sites": ["site3"], "target": "7", "strength": 3.0}
    study = parse_study(
        {
            "study": {"name": "digits", "task": "classification"},
            "data": {"classes": [str(digit) for digit in range(10)], "size": [8, 8]},
            "model": {"network": "mlp", "features": [32], "normalisation": "none"},
            "training": {"batch_size": 16, "learning_rate": 0.01, "local_epochs": 3},
            "federation": {"rounds": ROUNDS},
            "evaluation": {"metric": "accuracy", "keep": "last"},
            "simulation": {
                "data": "folder",
                "split": "natural",
                "options": {"manifest": str(manifest)},
                "adversary": [adversary],
                "late": {"site3": LATE},
                "compare": False,
            },
        }
    )
    run(study, tmp_path / "run")
    stopped = run(study, tmp_path / "stopped", DONE)
    asked = WithdrawalRequested(stopped, "site3", tmp_path / "new", machine=ONE_PROCESS)
    assert plan_of_run(asked).after_round == LATE - 1
    withdraw(asked)
    folders = [tmp_path / "run" / "sites" / f"site{number}" for number in (1, 2)]

    def obeys(out: Path) -> float:
        trained = load_trained(out, "federated")
        assert trained is not None
        found = list(backdoor_rows(folders, study, trained))
        return value_of(found, "federated", ALL_SITES, BACKDOOR_SUCCESS)

    before, after = obeys(tmp_path / "run"), obeys(tmp_path / "new")
    assert before > 0.8
    assert after < 0.15, "one in ten is what a model says by chance"


def waves_of(manifest: Path) -> Path:
    """Write a manifest's patients in two waves of data."""
    head, *rows = manifest.read_text().splitlines()
    waves = [f"{row},{1 + int(row.split(',')[0].removeprefix(CANARY)) // 6 % 2}" for row in rows]
    manifest.write_text("\n".join([f"{head},wave", *waves]) + "\n")
    return manifest


@pytest.mark.long
@pytest.mark.parametrize("leaves", ["site", "patients"])
def test_who_leaves_a_parent_is_in_no_bit_of_the_study_that_goes_on_from_its_repeat(
    leaves: str, tmp_path: Path, wardround: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    gone = tuple(patients_of("west")[: None if leaves == "site" else 8])
    (tmp_path / "gone.txt").write_text("\n".join(gone) + "\n")
    who = ("--site", "west", *(() if leaves == "site" else ("--patients", tmp_path / "gone.txt")))

    def done(*words: object) -> str:
        said = wardround(*words)
        assert said.code == 0, said.err
        return said.out

    def gone_on(parent: str, name: str) -> Path:
        study, out = tmp_path / f"{name}.toml", tmp_path / name
        done("study", "continue", tmp_path / parent, "--out", study)
        done("simulate", study, "--out", out, "--engine", "in-process", "--threads", 1)
        return out

    def first(manifest: Path, name: str) -> None:
        study = study_of(manifest, federation__rounds=2, continual__wave=1)
        run(with_changes(study, {"evaluation.keep": "last"}), tmp_path / name)

    first(waves_of(manifest_of(tmp_path)), "first")
    gone_on("first", "second")

    refused = wardround("withdraw", tmp_path / "second", *who, "--plan")
    assert refused.code == 2
    assert "goes on from the model of first, in which west has numbers too" in refused.err
    # The remedy that it names, to its end.
    done("withdraw", tmp_path / "first", *who, "--out", tmp_path / "repeat")
    again = gone_on("repeat", "again")
    assert load_study(again / "study.toml").study.repeats is None
    assert not set(gone) & set((again / "assignment.csv").read_text().replace("\n", ",").split(","))

    first(waves_of(manifest_of(tmp_path, gone)), "never")
    assert model_of(again) == model_of(gone_on("never", "never-again"))
    assert model_of(again) != model_of(tmp_path / "second")

    shelf = ("--shelf", tmp_path / "in-use")
    for name in ("first", "repeat"):
        done("runs", "promote", tmp_path / name, *shelf)
    back = wardround("runs", "rollback", *shelf)
    assert back.code == 2
    assert "without a hospital or patients who left" in back.err
