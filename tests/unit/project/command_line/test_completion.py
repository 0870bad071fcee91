"""What a shell completes: asked of a real bash, as a person would by the tab key."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ASK = """
{script}
COMP_WORDS=({words} "")
COMP_CWORD={place}
COMP_WORDS[{place}]="{typed}"
_wardround_completion wardround
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def ask_bash(folder: Path, *words: str) -> list[str]:
    """Return what bash offers for a command line whose last word is being typed."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "wardround"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wardround.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    script = '_source="$(wardround completion bash)"; eval "$_source"'
    *before, typed = words
    text = _ASK.format(
        script=script, words=" ".join(["wardround", *before]), place=len(words), typed=typed
    )
    done = subprocess.run(
        [bash, "--norc", "-c", text],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("stu",), ["study"]),
        (("study", "can"), ["canary"]),
        (("simulate", "--rou"), ["--rounds"]),
        (("simulate", "pneu"), ["pneumonia-xray", "pneumonia-xray-sum"]),
        (("simulate", "mine"), ["mine.toml"]),
        (("report", "runs/fi"), ["runs/first"]),
        (("simulate", "--resume", "runs/fi"), ["runs/first"]),
    ],
)
def test_bash_offers_commands_options_studies_and_run_folders(
    tmp_path: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "mine.toml").touch()
    assert ask_bash(tmp_path, *words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(wardround, shell: str) -> None:
    said = wardround("completion", shell)
    assert said.code == 0
    assert "_WARDROUND_COMPLETE" in said.out


def test_another_shell_is_refused(wardround) -> None:
    assert wardround("completion", "tcsh").code == 2
