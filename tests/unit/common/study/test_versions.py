"""Versions of the study file: 1 where nothing is said, upgraded by steps, refused if newer."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wardround.commands.study import study_app
from wardround.common.errors import StudyError
from wardround.common.study import versions
from wardround.common.study.explain.schema import study_schema
from wardround.common.study.loading import load_study, parse_study, study_from_json, with_changes
from wardround.common.study.template import study_template
from wardround.common.study.upgrade import upgrade
from wardround.common.study.versions import STEPS, Step, brought_up

# The digest of the template before studies had versions (on 0b730b3).
DIGEST = "3400f88013405caa0027293135a96afeeba36d462791851fc4d64f9a5a37dff3"
TEMPLATE = study_template("classification", False)
# An older Wardround that never was: it called the learning rate "lr", knew a key that nothing reads
# any more, and warmed up where nothing was said.
MADE_UP = Step(
    "The learning rate has its full name, and the warm-up is said.",
    renamed={"training.lr": "training.learning_rate"},
    removed=("training.warm_restarts",),
    added={"training.warmup": 0.1, "evaluation.overlap": 0.25},
)
OLD = """\
# Ours, agreed in March.
[study]
name = "lungs"
task = "classification"
description = '''
[training]
lr = 3 stands here in words
'''

[data]
classes = ["no", "yes"]  # in this order
size = [16, 16]

[model]
network = "small-cnn"

[training] # short
lr = 0.02   # tried: 0.1 diverged
warm_restarts = true
batch_size = 4

[federation]
rounds = 2
"""


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Wardround whose keys have changed once."""
    monkeypatch.setattr(versions, "STEPS", (MADE_UP,))
    monkeypatch.setattr("wardround.common.study.upgrade.STEPS", (MADE_UP,))


def old() -> dict[str, Any]:
    return tomllib.loads(OLD)


def test_a_study_that_says_version_one_is_the_one_that_says_nothing() -> None:
    content = tomllib.loads(TEMPLATE)
    said = parse_study({"schema": 1, **content})
    assert said == parse_study(content)
    assert said.digest == parse_study(content).digest == DIGEST
    assert "schema" not in said.to_toml()


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [("data", "optional", ["image", "second"]), ("model", "fusion", "late")],
)
def test_a_key_that_came_later_is_part_of_the_digest_where_it_says_something(
    table: str, key: str, value: object
) -> None:
    content = tomllib.loads(TEMPLATE)
    content["data"]["channels"] = ["image", "second", "third"]
    before = parse_study(content).digest
    content[table][key] = value
    assert parse_study(content).digest != before


def test_a_later_key_says_nothing_where_it_holds_its_default() -> None:
    written = parse_study(tomllib.loads(TEMPLATE)).model_dump(mode="json")
    for path, value in versions.LATER.items():
        held: Any = written
        for name in path.split("."):
            held = held[name]
        assert held == value, path


@pytest.mark.parametrize("said", [0, -1, True, 1.0, "1", [1], {}, None, "\x1b[2J" * 100])
def test_what_is_no_version_is_refused_with_the_ones_that_are(said: object) -> None:
    with pytest.raises(StudyError, match="no version of a study: write a whole number") as error:
        parse_study({"schema": said, **tomllib.loads(TEMPLATE)})
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("said", [2, 10**4000])
def test_a_newer_study_is_refused_with_both_versions_and_what_to_do(said: int) -> None:
    text = json.dumps({"schema": said, **tomllib.loads(TEMPLATE)})
    with pytest.raises(StudyError, match="reads versions up to 1: install") as error:
        study_from_json(text)
    assert str(said)[:20] in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "null", "[" * 500 + "]" * 500])
def test_json_that_is_no_table_is_refused_as_before(text: str) -> None:
    with pytest.raises(StudyError):
        study_from_json(text)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_a_file_that_the_reader_of_toml_cannot_take_is_refused(tmp_path: Path, value: str) -> None:
    """On 0b730b3 both ended in a traceback."""
    (tmp_path / "study.toml").write_text(f"schema = {value}\n", encoding="utf-8")
    with pytest.raises(StudyError, match="is not a TOML file"):
        load_study(tmp_path / "study.toml")
    done = CliRunner().invoke(study_app, ["upgrade", str(tmp_path / "study.toml")])
    assert isinstance(done.exception, StudyError)


@pytest.mark.usefixtures("second_version")
def test_an_older_study_is_read_in_todays_keys_and_writes_todays_version() -> None:
    study = parse_study(old())
    assert study.training.learning_rate == 0.02
    assert study.training.warmup == 0.1
    assert study.evaluation.overlap == 0.25
    assert tomllib.loads(study.to_toml())["schema"] == 2
    assert study_from_json(study.to_json()) == study
    assert with_changes(study, {"training.batch_size": 8}).training.warmup == 0.1


@pytest.mark.usefixtures("second_version")
def test_what_an_older_study_says_is_not_changed_in_the_callers_hands() -> None:
    content = old()
    brought_up(content)
    assert content == old()


@pytest.mark.usefixtures("second_version")
def test_an_approval_of_an_older_version_is_none_of_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = parse_study({"schema": 2, **tomllib.loads(TEMPLATE)}).digest
    monkeypatch.setattr(versions, "STEPS", ())
    assert new != DIGEST


@pytest.mark.usefixtures("second_version")
def test_two_names_of_one_key_are_refused() -> None:
    content = old()
    content["training"]["learning_rate"] = 0.1
    with pytest.raises(StudyError, match=r"both training\.lr and training\.learning_rate"):
        parse_study(content)


@pytest.mark.parametrize("table", [3, [1], "x", None])
@pytest.mark.usefixtures("second_version")
def test_an_older_study_with_something_else_in_a_tables_place_is_refused(table: object) -> None:
    with pytest.raises(StudyError):
        parse_study({**old(), "training": table})


@pytest.mark.usefixtures("second_version")
def test_the_schema_names_the_newest_version() -> None:
    assert study_schema()["properties"]["schema"]["maximum"] == 2


def test_steps_name_keys_that_are_keys() -> None:
    """Of what a later version has: each new name and each added key stands in the schema."""
    schema = study_schema()
    for step in STEPS:
        for key in (*step.renamed.values(), *step.added):
            table, _, name = key.rpartition(".")
            section = schema["properties"][table]["$ref"].rpartition("/")[2]
            assert name in schema["$defs"][section]["properties"]


def upgraded_by_command(path: Path, *options: str) -> str:
    done = CliRunner().invoke(study_app, ["upgrade", str(path), *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.usefixtures("second_version")
def test_upgrading_keeps_comments_and_order_and_leaves_a_copy(tmp_path: Path) -> None:
    text = _WORDS
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    said = upgraded_by_command(path)
    expected = (
        text.replace("[study]", "schema = 2\n\n[study]", 1)
        .replace("lr = 0.02   # tried", "learning_rate = 0.02   # tried")
        .replace("warm_restarts = true\n", "")
        .replace("batch_size = 4\n", "batch_size = 4\nwarmup = 0.1\n")
    )
    assert path.read_text(encoding="utf-8") == f"{expected}\n[evaluation]\noverlap = 0.25\n"
    assert (tmp_path / "study.toml.schema-1").read_text(encoding="utf-8") == text
    assert "-lr = 0.02   # tried: 0.1 diverged" in said
    assert "+learning_rate = 0.02   # tried: 0.1 diverged" in said
    assert MADE_UP.says in " ".join(said.split())
    assert f"digest {load_study(path).digest}" in said
    assert "approves the study anew" in said
    assert "nothing to do" in upgraded_by_command(path)


@pytest.mark.usefixtures("second_version")
def test_upgrading_to_another_file_touches_the_old_one_never(tmp_path: Path) -> None:
    path, out = tmp_path / "study.toml", tmp_path / "new.toml"
    text = "schema = 1 # first\n" + TEMPLATE
    path.write_text(text, encoding="utf-8")
    upgraded_by_command(path, "--out", str(out))
    assert path.read_text(encoding="utf-8") == text
    assert out.read_text(encoding="utf-8").startswith("schema = 2 # first\n")
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["new.toml", "study.toml"]
    done = CliRunner().invoke(study_app, ["upgrade", str(path), "--out", str(out)])
    assert "exists already" in str(done.exception)


_WORDS = OLD.replace("[training]\nlr = 3 stands here in words\n", "Words.\n")
_TRAINING = _WORDS[_WORDS.index("[training]") : _WORDS.index("\n[federation]")]


@pytest.mark.parametrize(
    "text",
    [
        OLD,  # words that look like a table and a key
        _WORDS.replace(_TRAINING, "[training]\n'lr' = 0.02\n"),
        "training = {lr = 0.02}\n" + _WORDS.replace(_TRAINING, ""),
    ],
)
@pytest.mark.usefixtures("second_version")
def test_what_cannot_be_rewritten_line_by_line_is_not_rewritten(text: str) -> None:
    with pytest.raises(StudyError, match=r"by hand.*training\.lr is now training\.learning_rate"):
        upgrade(text, "study.toml")


def test_a_study_of_today_has_nothing_to_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TEMPLATE, encoding="utf-8")
    assert "version 1, the newest" in upgraded_by_command(path)
    assert [one.name for one in tmp_path.iterdir()] == ["study.toml"]
    missing = CliRunner().invoke(study_app, ["upgrade", str(tmp_path / "none.toml")])
    assert "cannot read" in str(missing.exception)
