"""What leaves and what is kept under patient privacy is made of noised gradients and nothing else.

The noise is replaced by numbers that ask nothing of the gradients. Two hospitals with other
patients, and other numbers of them, must then say the same, bit for bit, in every round: also in
one whose reply was lost, and in one that was trained twice.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.hospitals.table_sites import study_for, write_sites
from torch import Tensor

from wardround.client.egress.message_schema import update_arrays
from wardround.client.privacy import step
from wardround.client.session.memory import state_of
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import open_site
from wardround.client.training.objectives.corrections import gradient_weight
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import StudyError
from wardround.common.messages.instructions import Instruction
from wardround.common.models.sharing import CONTROL
from wardround.common.parameters.schema import Parameters, prefixed, read_parameters, under
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.strategy import OBJECTIVES, SHARING
from wardround.common.study.study import Study

PROMISE = {"mode": "patient", "noise_multiplier": 1.0, "sampling_rate": 0.5}
RUN = "a" * 32
# (round, attempt, last round that the server counted): a reply lost, a round trained twice, and a
# server that does not say what it counted.
ORDERS = ((1, 0, 0), (2, 0, 1), (2, 1, 1), (3, 0, 2), (3, 1, -1), (4, 0, 3))
READING = {
    "contrastive",
    "small-features",
    "aligned-features",
    "coral",
    "distillation",
    "elastic-weights",
    "personal-model",
    "mixture",
    "fine-tune",
}


def private_study(**federation: Any) -> Study:
    return study_for(
        "fedavg",
        **{
            "model.normalisation": "layer",
            "training.local_steps": 2,
            "training.momentum": 0.5,
            "training.schedule": "cosine",
            **{f"privacy.{key}": value for key, value in PROMISE.items()},
        },
        **{f"federation.{key}": value for key, value in federation.items()},
    )


def fitting(objective: str, share: str) -> Study | None:
    """Return the private study of an objective and what is shared; None if it is refused."""
    server = "dynamic" if objective == "dynamic" else "replace"
    adapted = {"model.adapter_rank": 2} if share == "adapters" else {}
    try:
        changes = {"federation.objective": objective, "federation.share": share}
        return with_changes(
            private_study(), {**changes, "federation.server_optimiser": server, **adapted}
        )
    except StudyError:
        return None


@pytest.fixture
def hospitals(tmp_path: Path) -> list[Path]:
    """Return two hospitals, of 40 and of 23 patients, none of them the same."""
    folders = write_sites(tmp_path / "sites", 2)
    rows = (folders[1] / "manifest.csv").read_text(encoding="utf-8").split("\n")
    (folders[1] / "manifest.csv").write_text("\n".join(rows[:24]), encoding="utf-8")
    return folders


def said_and_kept(folder: Path, study: Study) -> list[Parameters]:
    """Return all arrays of a run's replies, and of what the site keeps after each."""
    site = replace(open_site(folder), is_tolerant=True)
    session = SiteSession(site, ModelContext.build(study, "cpu"))
    kept = session.context.keeps_state
    shared = session.context.layout.shared_part(read_parameters(session.context.network))
    variates = {spec.name for spec in update_arrays(session.context).get("auxiliary", ())}
    found: list[Parameters] = []
    for number, attempt, counted in ORDERS:
        generator = torch.Generator().manual_seed(number)
        draw = _drawing(generator)
        order = Instruction(
            study.digest,
            RUN,
            number,
            {name: tensor + draw(tensor) for name, tensor in shared.items()},
            attempt=attempt,
            auxiliary={name: draw(shared[name.removeprefix(CONTROL)]) for name in variates},
            counted_round=counted,
        )
        update = session.train(order)
        found.extend((update.parameters, update.auxiliary))
        assert set(update.auxiliary) == variates
        if kept:
            found.append(state_of(session.site, order).after(number))
    return found


def _drawing(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda like: torch.randn(like.shape, generator=generator)


def let_nothing_through(monkeypatch: pytest.MonkeyPatch, leak: float = 0.0) -> Callable[[], None]:
    """Replace the noise by numbers that are always the same; return what begins them anew."""
    generator = torch.Generator()

    def noised_mean(sums: Parameters, plan: object, randomness: object) -> Parameters:
        return {
            name: torch.randn(value.shape, generator=generator) + leak * value
            for name, value in sums.items()
        }

    monkeypatch.setattr(step, "noised_mean", noised_mean)

    def begin() -> None:
        generator.manual_seed(7)

    return begin


def are_equal(ours: list[Parameters], theirs: list[Parameters]) -> bool:
    return len(ours) == len(theirs) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_objectives_that_read_patients_past_the_noise_are_refused() -> None:
    refused = {
        objective
        for objective in OBJECTIVES
        if all(fitting(objective, share) is None for share in SHARING)
    }
    assert refused == READING


@pytest.mark.parametrize("compression", ["none", "int4", "top-k"])
@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - READING))
def test_what_leaves_and_what_is_kept_is_post_processing_of_noised_gradients(
    objective: str,
    share: str,
    compression: str,
    hospitals: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = fitting(objective, share)
    if study is None:  # head-then-body needs a head that stays
        return
    study = with_changes(study, {"federation.compression": compression})
    begin = let_nothing_through(monkeypatch)
    said = []
    for folder in hospitals:
        begin()
        said.append(said_and_kept(folder, study))
    assert any(any(t.is_floating_point() and t.any() for t in p.values()) for p in said[0])
    assert are_equal(*said)


def test_a_noise_that_lets_patients_through_would_be_seen(
    hospitals: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = private_study(strategy="scaffold")
    begin = let_nothing_through(monkeypatch, leak=1e-3)
    said = []
    for folder in hospitals:
        begin()
        said.append(said_and_kept(folder, study))
    assert not are_equal(*said)


def test_a_control_variate_is_computed_from_what_left_and_what_was_sent_before(
    hospitals: list[Path],
) -> None:
    """An observer of the messages alone, who knows no patient, computes each bit of it."""
    study = private_study(strategy="scaffold")
    site = replace(open_site(hospitals[0]), is_tolerant=True)
    session = SiteSession(site, ModelContext.build(study, "cpu"))
    shared = session.context.layout.shared_part(read_parameters(session.context.network))
    after: dict[int, Parameters] = {0: {name: torch.zeros_like(t) for name, t in shared.items()}}
    for number, attempt, counted in ORDERS:
        draw = _drawing(torch.Generator().manual_seed(number))
        sent = {name: tensor + draw(tensor) for name, tensor in shared.items()}
        common = {name: draw(tensor) for name, tensor in shared.items()}
        auxiliary = prefixed(CONTROL, common)
        order = Instruction(study.digest, RUN, number, sent, attempt, auxiliary=auxiliary)
        update = session.train(replace(order, counted_round=counted))
        position = SchedulePosition.of_round(number, study.federation.rounds, 2)
        walked = gradient_weight(study.training, position)
        own = after[number - 1]
        renewed = {
            name: own[name] - common[name] + (sent[name] - update.parameters[name]) / walked
            for name in shared
        }
        after[number] = renewed
        change = {name: renewed[name] - own[name] for name in shared}
        assert are_equal([under(CONTROL, update.auxiliary)], [change])


def test_of_what_a_strategy_asks_for_only_a_control_variate_leaves_a_private_study() -> None:
    """The study's rules refuse both together; the guard does not rely on it."""
    content = private_study(strategy="scaffold").model_dump(exclude_unset=True)
    content["federation"]["aggregation"] = "fair-mean"
    context = ModelContext.build(Study.model_validate(content), "cpu")
    names = [spec.name for spec in update_arrays(context)["auxiliary"]]
    assert names
    assert all(name.startswith(CONTROL) for name in names)
