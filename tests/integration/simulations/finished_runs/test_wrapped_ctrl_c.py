"""Ctrl-C that comes while pydantic writes a model is Ctrl-C, and no defect of wardround."""

from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, field_serializer, model_serializer
from tests.support.studies.tiny_runs import write_tiny_study

from wardround import cli
from wardround.common.runtime.system.signals import is_ctrl_c, raise_if_ctrl_c
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, resume, simulate
from wardround.simulations.run_files.events import Event, RoundDone
from wardround.simulations.run_files.folder import read_facts


class Whole(BaseModel):
    """Interrupted in a function of its own."""

    @model_serializer
    def write(self) -> dict[str, str]:
        raise KeyboardInterrupt


class Field(BaseModel):
    """Interrupted in the function of a field."""

    name: str = ""

    @field_serializer("name")
    def write(self, name: str) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("model", [Whole(), Field()])
def test_what_pydantic_makes_of_it_is_known(model: BaseModel) -> None:
    with pytest.raises(Exception, match="KeyboardInterrupt") as caught:
        model.model_dump()
    assert is_ctrl_c(caught.value)
    with pytest.raises(KeyboardInterrupt):
        raise_if_ctrl_c(caught.value)


def test_other_errors_are_what_they_are() -> None:
    for error in (ValueError("KeyboardInterrupt:"), SystemExit(1), RuntimeError("x")):
        assert not is_ctrl_c(error)
        raise_if_ctrl_c(error)


def test_a_command_that_is_stopped_there_says_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.command()(lambda: Whole().model_dump())
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["wardround"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "stopped." in capsys.readouterr().err


def test_a_run_that_is_stopped_there_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    study, out = write_tiny_study(tmp_path, simulation__compare=False), tmp_path / "run"
    machine = Machine("cpu", "in-process", threads=1)

    def stop(event: Event) -> None:
        if isinstance(event, RoundDone):
            Whole().model_dump()

    with pytest.raises(KeyboardInterrupt):
        simulate(SimulationRequest(study, out, machine), stop)
    assert read_facts(out).status == "interrupted"
    resume(out, machine)
    assert read_facts(out).status == "finished"
