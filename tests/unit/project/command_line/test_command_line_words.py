"""What the command line says: nothing is cut off or lost, and an error names what was typed."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from wardround.cli import app
from wardround.client.site.folder import open_site
from wardround.common.study.loading import load_study
from wardround.server.scheduling.submission import submit_study

ROOT = Path(__file__).resolve().parents[4]
Command = Callable[..., Any]


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


# --- Help -------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "wardround")
def test_help_at_eighty_columns_has_every_name_and_every_word(
    wardround: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = wardround(*words, "--help")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    text = " ".join(said.out.split())
    for parameter in COMMANDS[words].params:
        if getattr(parameter, "hidden", False):
            continue
        for name in getattr(parameter, "opts", ()) if parameter.param_type_name == "option" else ():
            assert name in text
        assert " ".join((getattr(parameter, "help", None) or "").split()) in text
    assert "\\[" not in text


def test_the_help_of_privacy_names_the_section(wardround: Command) -> None:
    text = " ".join(wardround("simulate", "--help").out.split())
    assert "or more keys of a study's [privacy]." in text


@pytest.mark.parametrize("words", [(), ("simulate",), ("site", "ledger"), ("server", "status")])
def test_h_is_help(wardround: Command, words: tuple[str, ...]) -> None:
    short = wardround(*words, "-h")
    assert short.code == 0
    assert short.out == wardround(*words, "--help").out


# --- What was typed ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("--privacy", "8"), ["--privacy 8", "write --privacy epsilon=8"]),
        (("--privacy", "epsilon"), ["--privacy epsilon:", "epsilon=VALUE"]),
        (("--privacy", "eps=8"), ["--privacy eps=8", "did you mean 'epsilon'"]),
        (("--set", "lr=0.1"), ["'lr'", "did you mean training.learning_rate?"]),
        (("--set", "rounds=3"), ["'rounds'", "did you mean federation.rounds?"]),
        (("--set", "training.lr=0.1"), ["--set training.lr=0.1", "did you mean 'learning_rate'"]),
        (("--set", "training.wd=0"), ["training.wd", "did you mean 'weight_decay'"]),
        (("--set", "training.bs=4"), ["training.bs", "did you mean 'batch_size'"]),
        (("--set", "training.Epochs=4"), ["training.Epochs", "did you mean 'local_epochs'"]),
        (("--set", "training.gc=4"), ["training.gc", "did you mean 'gradient_clip'"]),
        (("--set", "training.optimizer=adam"), ["did you mean 'optimiser'"]),
        (("--set", "training.optimiser=Adam"), ["'Adam'", "Did you mean 'adam'"]),
        (("--set", "model.network=UNet"), ["--set model.network=UNet", "Did you mean 'unet'?"]),
        (("--set", "model.network=DenseNet-121"), ["Did you mean 'densenet121'?"]),
        (("--set", "federation.strategy=FedProx"), ["'FedProx'", "Did you mean 'fedprox'?"]),
        (("--set", "evaluation.metric=DSC"), ["'DSC'", "Known: "]),
        (("--set", "evaluation.metric=AUC"), ["'AUC'", "Did you mean 'auroc'?"]),
        (("--set", "training=3"), ["'training'", "it is a section"]),
        (("--set", "=3"), ["--set =3 has no key"]),
        (("--set", "training.batch_size"), ["--set training.batch_size has no value"]),
        (("--split", "Dirichlet"), ["--split Dirichlet", "Did you mean 'dirichlet'?"]),
        (("--rounds", "0"), ["--rounds 0", "federation.rounds"]),
        (("--engine", "Pool"), ["'Pool'", "Did you mean 'pool'?"]),
    ],
)
def test_an_error_names_what_was_typed_and_suggests_once(
    wardround: Command, tmp_path: Path, typed: tuple[str, ...], told: list[str]
) -> None:
    said = wardround("simulate", "brain-tissue", "--out", tmp_path / "run", *typed)
    assert said.code == 2
    for words in told:
        assert words in said.err
    assert said.err.lower().count("did you mean") <= 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("study", "check", "Brain_Tissue"), "brain-tissue"),
        (("data", "show", "HAM-10000"), "ham10000"),
        (("data", "get", "heartdisease"), "heart-disease"),
    ],
)
def test_capitals_and_hyphens_hide_no_name(
    wardround: Command, words: tuple[str, ...], meant: str
) -> None:
    said = wardround(*words)
    assert said.code == 2
    assert said.err.count(f"Did you mean {meant!r}?") == 1


# --- Names ------------------------------------------------------------------------------------
def written(study: Path, folder: Path, name: str) -> Path:
    text = study.read_text(encoding="utf-8")
    old = load_study(study).name
    path = folder / "named.toml"
    path.write_text(text.replace(f'"{old}"', json.dumps(name, ensure_ascii=False), 1), "utf-8")
    return path


@pytest.mark.parametrize("name", ["Köln", "Łódź 2", "Hôpital d-Été", "Ko\u0308ln"])
def test_a_study_may_have_a_name_with_accents(
    wardround: Command, tiny_study: Any, tmp_path: Path, name: str
) -> None:
    said = wardround("study", "check", written(tiny_study.study, tmp_path, name))
    assert said.code == 0, said.err
    composed = "Köln" if name.startswith("K") else name
    assert f"{composed} is a valid study." in said.out  # two spellings of one name are one


@pytest.mark.parametrize("name", ["К\u0430", "a\u202eb", "a/b", "-a", "", "ö" * 33, "a×b"])
def test_a_name_that_is_a_path_or_looks_like_another_is_refused_without_a_pattern(
    wardround: Command, tiny_study: Any, tmp_path: Path, name: str
) -> None:
    said = wardround("study", "check", written(tiny_study.study, tmp_path, name))
    assert said.code == 2
    assert "study.name" in said.err
    assert "^[" not in said.err


def test_a_server_and_its_sites_and_its_runs_may_have_names_with_accents(
    wardround: Command, tiny_study: Any, tmp_path: Path
) -> None:
    server = tmp_path / "server"
    made = wardround("server", "init", server, "--name", "Köln 26", "--public-name", "localhost")
    assert made.code == 0, made.err
    invited = wardround("server", "invite", "Łódź", "--server", server)
    assert invited.code == 0, invited.err
    assert "Łódź" in invited.err + invited.out
    row = submit_study(server, load_study(written(tiny_study.study, tmp_path, "Größe")))
    assert row.run.startswith("gro")
    assert row.run.isascii()
    site = tmp_path / "site"
    site.mkdir()
    (site / "site.toml").write_text('name = "Köln"\n', encoding="utf-8")
    assert open_site(site).name == "Köln"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("site.toml", 'name = "a/b"\n', ("site", "ledger", "show")),
        ("site.toml", 'name = "a"\ndevice = "gpu"\n', ("site", "status")),
        ("site.toml", 'name = "a"\n[server]\naddress = "x"\n', ("site", "status")),
        ("policy.toml", 'approved = ["abc"]\n', ("site", "policy", "check")),
        ("server.toml", 'name = "a"\npublic_names = ["a b"]\n', ("server", "status")),
        ("server.toml", 'name = "a"\npublic_names = ["a"]\noperators = "x"\n', ("runs", "list")),
    ],
)
def test_no_regular_expression_is_shown(
    wardround: Command, tmp_path: Path, file: str, text: str, words: tuple[str, ...]
) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    at = ("--server", tmp_path) if words[0] == "runs" else (tmp_path,)
    said = wardround(*words, *at)
    assert said.code != 0
    assert "^" not in said.err
    assert "pattern" not in said.err


# --- What is asked for ------------------------------------------------------------------------
def test_the_status_of_what_does_not_run_ends_with_3_and_of_what_is_not_there_with_2(
    wardround: Command, tmp_path: Path
) -> None:
    server, site, empty = tmp_path / "server", tmp_path / "site", tmp_path / "empty"
    wardround("server", "init", server, "--name", "a", "--public-name", "localhost")
    for folder in (site, empty):
        folder.mkdir()
    (site / "site.toml").write_text('name = "a"\n', encoding="utf-8")
    for words in ((), ("--json",)):
        assert wardround("server", "status", server, *words).code == 3
        assert wardround("site", "status", site, *words).code == 3
        assert wardround("server", "status", empty, *words).code == 2
        assert wardround("site", "status", empty, *words).code == 2


def test_the_data_of_a_study_is_shown_by_the_studys_name(
    wardround: Command, tiny_study: Any
) -> None:
    assert (
        wardround("data", "show", "pneumonia-xray").out == wardround("data", "show", "medmnist").out
    )
    assert (
        wardround("data", "show", tiny_study.study).out == wardround("data", "show", "folder").out
    )
    assert wardround("data", "show", "nothing").code == 2


def test_a_site_explains_a_built_in_study_since_its_messages_offer_one(
    wardround: Command, tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    wardround("site", "policy", "new", tmp_path)
    said = wardround("site", "explain", "brain-tissue", "--site", tmp_path)
    assert said.code == 1  # it has no privacy, which the policy asks for
    assert "brain-tissue" in said.out
    unknown = wardround("site", "explain", "brain-tisue", "--site", tmp_path)
    assert unknown.code == 2
    assert "Did you mean 'brain-tissue'?" in unknown.err


def test_every_key_of_the_schema_says_what_it_means(wardround: Command) -> None:
    schema = json.loads(wardround("study", "schema").out)
    silent = [
        f"{section}.{key}"
        for section, table in schema["$defs"].items()
        for key, content in table["properties"].items()
        if not content.get("description")
    ]
    silent += [key for key, content in schema["properties"].items() if not content["description"]]
    assert not silent, "say it in common/study/explain/schema.py"


def texts_of_code(path: Path) -> Iterator[str]:
    """Yield the texts of a module that a person may be shown: all but docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ours:
            yield node.value


@pytest.mark.parametrize("package", ["client", "common", "server", "simulations", "src/wardround"])
def test_no_remedy_points_to_a_page_that_a_wheel_does_not_hold(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for text in texts_of_code(path):
            assert "docs/" not in text, f"{path}: {text}"
            page = text not in (".md", "card.md") and ".md" in text  # the card of a model folder
            assert not page, f"{path}: {text}"
    others = (".toml", ".jinja", ".html", ".js", ".txt")  # a built-in study can be printed
    for path in (ROOT / package).rglob("*"):
        if path.suffix in others:
            assert "docs/" not in path.read_text(encoding="utf-8"), path
