"""The command line: its words, what it starts, and what it prints for a machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from wardround.cli import app
from wardround.common.study.loading import load_study

HEAVY = ("torch", "monai", "flwr", "pydantic", "numpy", "scipy", "nibabel", "ray")
HELP_CPU_SECONDS = 0.5


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command."""
    inner = getattr(group, "commands", None)
    if inner is None:
        yield path
        return
    for name, command in inner.items():
        yield from commands(command, (*path, name))


COMMANDS = sorted(commands(typer.main.get_command(app)))


def test_the_commands_are_known() -> None:
    assert {("simulate",), ("split",), ("report",), ("data", "list"), ("study", "new")} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(wardround, words: tuple[str, ...]) -> None:
    said = wardround(*words, "--help")
    assert said.code == 0
    assert f"Example: wardround {' '.join(words)} " in " ".join(said.out.split()) + " "


def test_without_words_the_commands_are_listed(wardround) -> None:
    said = wardround()
    assert "simulate" in said.out + said.err
    assert "Traceback" not in said.err


def test_the_version_is_printed(wardround) -> None:
    assert re.fullmatch(r"wardround \d+\.\d+\.\d+\n", wardround("--version").out)


def test_an_unknown_command_and_option_end_with_code_2(wardround) -> None:
    for words in (("simulat",), ("simulate", "--round", "3"), ("data", "show")):
        said = wardround(*words)
        assert said.code == 2
        assert "Traceback" not in said.err


def test_help_starts_nothing_heavy_and_is_quick() -> None:
    code = (
        "import resource, sys\n"
        "import wardround.cli\n"
        "sys.argv = ['wardround', '--help']\n"
        "try: wardround.cli.main()\n"
        "except SystemExit: pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "print(heavy, used.ru_utime + used.ru_stime, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, _, seconds = done.stderr.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < HELP_CPU_SECONDS


def test_reading_output_only_in_part_is_no_error() -> None:
    command = f"{sys.executable} -m wardround.cli study schema | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


# --- Study ---------------------------------------------------------------------
def test_a_new_study_is_valid_and_explains_itself(wardround, tmp_path) -> None:
    path = tmp_path / "study.toml"
    assert wardround("study", "new", path).code == 0
    study = load_study(path)
    checked = wardround("study", "check", path)
    assert study.digest in checked.out
    as_json = json.loads(wardround("study", "check", path, "--json").out)
    assert (as_json["name"], as_json["digest"]) == (study.name, study.digest)
    assert "These never leave" in wardround("study", "explain", path).out
    again = wardround("study", "new", path)
    assert again.code == 2
    assert "exists already" in again.err


def test_what_freezes_nothing_of_the_network_is_said_when_a_study_is_checked(
    wardround, tmp_path
) -> None:
    path = tmp_path / "study.toml"
    assert wardround("study", "new", path).code == 0
    written = path.read_text()
    for frozen, words in (("no.layer*", "model.frozen"), ("*", "leaves nothing to train")):
        path.write_text(written.replace("[model]", f'[model]\nfrozen = ["{frozen}"]', 1))
        checked = wardround("study", "check", path)
        assert checked.code == 2
        assert words in checked.err


def test_the_schema_lists_every_key(wardround) -> None:
    schema = json.loads(wardround("study", "schema").out)
    assert {"study", "data", "model", "training", "federation"} <= schema["properties"].keys()


# --- Data ----------------------------------------------------------------------
def test_the_data_sets_are_listed_for_people_and_machines(wardround) -> None:
    listed = json.loads(wardround("data", "list", "--json").out)
    names = {entry["name"] for entry in listed}
    assert {"folder", "brain-tissue", "heart-disease"} <= names
    assert all(entry["licence"] for entry in listed)
    text = wardround("data", "list").out
    assert all(name in text for name in names)


def test_a_data_set_is_shown_with_licence_and_options(wardround) -> None:
    said = wardround("data", "show", "heart-disease")
    assert said.code == 0
    assert "licence" in said.out
    unknown = wardround("data", "show", "hart-disease")
    assert unknown.code == 2
    assert "Did you mean 'heart-disease'?" in unknown.err


def test_the_data_of_a_study_is_found_and_counted(wardround, tiny_study) -> None:
    said = wardround("data", "get", tiny_study.study)
    assert "20 examinations of 20 patients" in said.out


def test_what_a_machine_asks_of_a_study_and_its_data_is_json(wardround, tiny_study) -> None:
    explained = json.loads(wardround("study", "explain", tiny_study.study, "--json").out)
    assert explained["digest"] == load_study(tiny_study.study).digest
    assert explained["text"] == wardround("study", "explain", tiny_study.study).out
    found = json.loads(wardround("data", "get", tiny_study.study, "--json").out)
    assert found["patients"] > 0
    assert set(found) == {"name", "title", "examinations", "patients", "licence"}


# --- Split ---------------------------------------------------------------------
def test_a_split_is_shown_saved_and_drawn(wardround, tiny_study, tmp_path) -> None:
    out = tmp_path / "split"
    said = wardround("split", tiny_study.study, "--out", out)
    assert said.code == 0, said.err
    for word in ("north", "south", "train", "validation", "test", "normal", "abnormal"):
        assert word in said.out
    assert "CANARY" not in said.out + said.err
    assert {path.name for path in (out / "sites").iterdir()} == {"north", "south"}
    assert (out / "assignment.csv").exists()
    picture = (out / "split.html").read_text(encoding="utf-8")
    assert "<svg" in picture
    assert picture.count("<title>") >= 12, "two sites, three splits, two classes"
    assert "//" not in picture.replace("http://www.w3.org/2000/svg", ""), "self-contained"
    assert "default-src 'none'" in picture
    assert "CANARY" not in picture


def test_a_split_is_printed_for_machines(wardround, tiny_study, tmp_path) -> None:
    said = wardround(
        "split", tiny_study.study, "--split", "iid", "--sites", 2, "--out", tmp_path / "s", "--json"
    )
    rows = json.loads(said.out)
    assert sum(row["examinations"] for row in rows if not row["class_name"]) == 20


def test_a_split_can_be_drawn_again_from_a_saved_one(wardround, tiny_study, tmp_path) -> None:
    study, first, second = tiny_study.study, tmp_path / "1", tmp_path / "2"
    wardround("split", study, "--split", "iid", "--sites", 2, "--seed", 3, "--out", first)
    said = wardround("split", study, "--assignment", first / "assignment.csv", "--out", second)
    assert said.code == 0, said.err
    assert (first / "split.csv").read_bytes() == (second / "split.csv").read_bytes()


# --- Simulate ------------------------------------------------------------------
def test_a_simulation_says_its_result_in_words_and_in_json(wardround, tiny_study, tmp_path) -> None:
    run = tmp_path / "run"
    options = ("--engine", "in-process", "--threads", 1, "--rounds", 1, "--out", run)
    said = wardround("simulate", tiny_study.study, *options)
    assert said.code == 0, said.err
    assert f"Report: {run / 'report.html'}" in said.out.replace("\n", "").replace("  ", " ")
    result = wardround("simulate", "--resume", run, "--engine", "in-process", "--json")

    def refuse_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    parsed = json.loads(result.out, parse_constant=refuse_constant)
    assert [site["site"] for site in parsed["sites"]] == ["north", "south"]
    assert wardround("report", run).out == f"{run / 'report.html'}\n"


def test_json_has_null_for_what_is_no_number(wardround, tiny_study, tmp_path) -> None:
    options = ("--engine", "in-process", "--threads", 1, "--rounds", 1, "--no-compare")
    said = wardround("simulate", tiny_study.study, *options, "--out", tmp_path / "r", "--json")
    assert "NaN" not in said.out
    assert json.loads(said.out)["sites"][0]["alone"] is None


def test_a_traceback_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import wardround.cli as c\ndef broken(): raise KeyError('x')\nc.app = broken\nc.main()\n"
    )
    for wanted in (True, False):
        environment = {**os.environ, "WARDROUND_TRACEBACK": "1" if wanted else ""}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == wanted


def test_an_optional_key_can_be_left_out_on_the_command_line() -> None:
    from wardround.simulations.cli.simulate import Options, resolve_study

    asked = Options("brain-tissue", changes=("training.local_epochs=", "training.local_steps=3"))
    training = resolve_study(asked).training
    assert (training.local_epochs, training.local_steps) == (None, 3)
