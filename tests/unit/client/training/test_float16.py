"""Training in float16: each step that is counted was made, and the scale of the loss is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    instruction_for,
    write_site,
)
from tests.unit.client.training.test_local import train
from torch.optim.optimizer import register_optimizer_step_post_hook

from wardround.client.app import close_sessions, open_session
from wardround.common.errors import RunError, StudyError
from wardround.common.messages.instructions import TRAIN, Instruction, new_run
from wardround.common.messages.replies import unpack_update
from wardround.common.study.loading import parse_study

FIRST_SCALE = 2.0**16  # torch's own


@pytest.fixture
def steps() -> Iterator[list[torch.optim.Optimizer]]:
    """The steps that change a network."""
    made: list[torch.optim.Optimizer] = []
    handle = register_optimizer_step_post_hook(lambda optimiser, *_: made.append(optimiser))
    yield made
    handle.remove()


def test_a_step_whose_gradient_overflows_is_made_at_a_smaller_scale(
    steps: list[torch.optim.Optimizer],
) -> None:
    inputs = [1.0, 2.0, 1.0, 1.5, 1.0]
    weight, work = train(1.0, inputs, learning_rate=0.05, precision="float16")
    assert len(steps) == work.updates == len(inputs)
    exact, _ = train(1.0, inputs, learning_rate=0.05)
    assert weight == pytest.approx(exact, rel=2e-3)


def test_an_overflow_in_the_first_step_leaves_no_momentum_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch's fused SGD makes its momentum of unset memory, and fills it in a step that is made."""
    monkeypatch.setattr(torch, "empty_like", lambda tensor, **_: torch.full_like(tensor, 1e30))
    inputs, told = [1.0, 1.0], {"learning_rate": 0.01, "momentum": 0.9}
    weight, _ = train(0.75, inputs, precision="float16", **told)  # 2^16 * 1.5 is no float16
    exact, _ = train(0.75, inputs, **told)
    assert weight == pytest.approx(exact, rel=2e-3)


def test_a_gradient_that_overflows_at_any_scale_ends_the_training_in_words() -> None:
    with pytest.raises(RunError, match="too large for float16"):
        train(1e4, [100.0], learning_rate=0.1, precision="float16")


def test_the_scale_lasts_for_all_rounds_of_a_run(
    tmp_path: Path, steps: list[torch.optim.Optimizer]
) -> None:
    content = STUDY.model_dump(exclude_defaults=True)
    training = {**content["training"], "precision": "float16", "local_steps": 5}
    training |= {"class_weights": [1e3, 1e3], "learning_rate": 1e-5}  # large losses, small steps
    study = parse_study({**content, "training": training})
    folder = write_site(tmp_path / "north", approved=f'["{study.digest}"]')
    try:
        first = instruction_for(folder, 1, study)
        session, scales = open_session(context_of(folder, study)), []
        for number in (1, 2, 3):
            order = Instruction(study.digest, first.run, number, first.parameters)
            made = len(steps)
            update = unpack_update(ask(folder, TRAIN, order, study), study)
            assert update.updates == len(steps) - made == 5
            scales.append(session._trainer._scalers[first.run].get_scale())
        assert 1.0 <= scales[0] < FIRST_SCALE
        assert scales[2] <= scales[1] <= scales[0]
        order = Instruction(study.digest, new_run(), 1, first.parameters)
        ask(folder, TRAIN, order, study)
        assert first.run not in session._trainer._scalers, "another run begins anew"
    finally:
        close_sessions()


@pytest.mark.parametrize("strategy", ["ditto", "apfl"])
def test_a_personal_twin_does_not_train_in_float16(strategy: str) -> None:
    content = STUDY.model_dump(exclude_defaults=True)
    training = {**content["training"], "precision": "float16"}
    federation = {**content["federation"], "strategy": strategy}
    with pytest.raises(StudyError, match="a second scale for float16"):
        parse_study({**content, "training": training, "federation": federation})
