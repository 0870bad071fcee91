"""Studies that go on from each other, whole: trained, compared, put into use, and taken back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.studies.tiny_study import Said
from tests.support.studies.wave_study import PATIENTS, write_class_study, write_wave_study

from wardround.common.study.loading import load_study
from wardround.simulations.evidence.waves import sequel_of
from wardround.simulations.run_files.waves import PARENT, read_waves

Command = Callable[..., Said]
ALONE = ("--engine", "in-process", "--device", "cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def done(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def assigned(run: str) -> dict[str, tuple[str, str]]:
    lines = Path(run, "assignment.csv").read_text().splitlines()[1:]
    return {p: (site, split) for p, site, split in (line.split(",") for line in lines)}


@pytest.mark.long
@pytest.mark.parametrize("methods", [("replay", None), ("ewc", "lwf")], ids=["kept", "changed"])
def test_a_sequence_of_three_studies_goes_on_and_tells_what_it_forgot(
    wardround: Command, tmp_path: Path, methods: tuple[str | None, str | None]
) -> None:
    write_wave_study(tmp_path)
    done(wardround("simulate", "study.toml", "--out", "one", *ALONE))
    before = "one"
    for name, method in zip(("two", "three"), methods, strict=True):
        words = () if method is None else ("--method", method)
        said = done(wardround("study", "continue", before, "--out", f"{name}.toml", *words))
        assert "This digest is another one" in said
        assert "100%" in done(wardround("study", "check", f"{name}.toml"))
        done(wardround("simulate", f"{name}.toml", "--out", name, *ALONE))
        assert assigned(before) == {p: assigned(name)[p] for p in assigned(before)}
        before = name

    assert len(assigned("three")) == PATIENTS
    study = load_study(Path("three.toml"))
    assert study.continual is not None
    kept = [method for method in methods if method is not None][-1]
    assert (study.continual.method, study.continual.wave) == (kept, 3)
    rows = read_waves(Path("three"))
    found = sequel_of(rows)
    assert found is not None
    assert found.waves == (1, 2, 3)
    assert {(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (1, 2), (2, 3)} == set(found.after)
    started = {(r.site, r.wave): r.value for r in rows if (r.after, r.model) == (2, PARENT)}
    made = {(r.site, r.wave): r.value for r in rows if (r.after, r.model) == (1, "made")}
    assert all(started[place] == value for place, value in made.items()), "bit by bit"

    done(wardround("report", "three", "--format", "json"))
    sections = json.loads(Path("three/report.json").read_text())["sections"]
    told = next(one for one in sections if one["anchor"] == "waves")
    assert [row["heading"] for row in told["tables"][1]["rows"]] == [
        "average",
        "backward transfer",
        "forward transfer",
        "forgetting",
        "plasticity",
    ]


@pytest.mark.long
def test_a_model_goes_into_use_where_no_site_falls_and_back_in_one_command(
    wardround: Command, tmp_path: Path
) -> None:
    write_wave_study(tmp_path, waves=2)
    done(wardround("simulate", "study.toml", "--out", "one", *ALONE))
    done(wardround("study", "continue", "one", "--out", "two.toml", "--set", "continual.margin=1"))
    done(wardround("simulate", "two.toml", "--out", "two", *ALONE))
    shelf = ("--shelf", "in-use")
    done(wardround("runs", "promote", "one", *shelf))
    first = json.loads(done(wardround("runs", "promoted", *shelf, "--json")))[-1]
    said = done(wardround("runs", "promote", "two", *shelf))
    assert "wave 1 (test of 10 patients)" in said
    assert "In use again" in done(wardround("runs", "rollback", *shelf))
    record = json.loads(done(wardround("runs", "promoted", *shelf, "--json")))
    assert [one["kind"] for one in record] == ["promote", "promote", "rollback"]
    assert record[-1]["model"] == first["model"]
    assert Path(record[-1]["folder"], "weights.safetensors").is_file()

    # The same model, held to a margin that no model could keep.
    strict = ("--set", "continual.margin=0", "--set", "training.learning_rate=20")
    done(wardround("study", "continue", "one", "--out", "bad.toml", "--method", "none", *strict))
    done(wardround("simulate", "bad.toml", "--out", "bad", *ALONE))
    refused = wardround("runs", "promote", "bad", *shelf)
    assert refused.code != 0
    assert "falls beyond the margin at" in refused.err
    assert len(json.loads(done(wardround("runs", "promoted", *shelf, "--json")))) == 3


@pytest.mark.long
def test_a_class_that_comes_later_is_learnt_and_the_earlier_ones_are_not_forgotten(
    wardround: Command, tmp_path: Path
) -> None:
    """The rows of the new class lie in the same manifest all the time."""
    write_class_study(tmp_path)
    done(wardround("simulate", "study.toml", "--out", "one", *ALONE))
    words = ("--out", "two.toml", "--add-class", "maybe")
    done(wardround("study", "continue", "one", *words))
    done(wardround("simulate", "two.toml", "--out", "two", *ALONE))
    found = sequel_of(read_waves(Path("two")))
    assert found is not None
    assert set(found.after) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert found.after[2, 2] > 0.9
    assert found.plasticity == found.after[2, 2] - found.after[1, 2] > 0.2
    assert found.forgetting < 0.1
    for names, said in ((("yes",), "yes"), (("maybe", "maybe"), "maybe")):
        words = [word for name in names for word in ("--add-class", name)]
        refused = wardround("study", "continue", "one", "--out", "three.toml", *words)
        assert refused.code == 2
        assert said in refused.err


def test_a_run_without_a_model_and_other_things_are_no_parent(
    wardround: Command, tmp_path: Path
) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("nowhere", None, "is no run folder and no model folder"),
        ("empty", {}, "is no run folder and no model folder"),
        ("unfinished", {"run.json": "{}"}, "has no federated model"),
        ("damaged", {"contract.json": "{}"}, "the model folder lacks weights.safetensors"),
    ]
    for name, files, words in cases:
        if files is not None:
            (tmp_path / name).mkdir()
            for file, text in files.items():
                (tmp_path / name / file).write_text(text)
        refused = wardround("study", "continue", name, "--out", "next.toml")
        assert refused.code == 2, name
        assert words in refused.err
        assert not Path("next.toml").exists()
    Path("next.toml").write_text("")
    assert "exists already" in wardround("study", "continue", "x", "--out", "next.toml").err
