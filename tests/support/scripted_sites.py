"""Sites that are scripts, the grid that they stand on, and a run over them."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from flwr.app import Error, Message, RecordDict

import wardround
from wardround.client.tasks.classification import count_classification
from wardround.common.flower.site_grid import MessageNumbers, SiteGrid, begin_local_run
from wardround.common.messages.instructions import Instruction, unpack_instruction
from wardround.common.messages.replies import (
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    pack_evaluation,
    pack_site_info,
    pack_update,
)
from wardround.common.metrics.sums import MetricSums
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.server.rounds.loop import RoundFinished
from wardround.simulations.engines.in_process import site_contexts
from wardround.simulations.experiment.federation import run_federation

BASE = {
    "study": {"name": "rounds", "task": "classification"},
    "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "age"}]},
    "model": {"network": "mlp", "features": []},
    "federation": {"rounds": 3, "minimum_sites": 2},
    "evaluation": {"metric": "loss"},
}
Reply = RecordDict | Error


def study_with(**federation: object) -> Study:
    changes = {f"federation.{key}": value for key, value in federation.items()}
    return with_changes(parse_study(BASE), changes)


def measured(study: Study, patients: int, loss: float) -> MetricSums:
    """Return what a site measures on patients of both classes, with this mean loss."""
    truth = torch.arange(patients) % 2
    counted = count_classification(torch.zeros(patients, 2), truth, study)
    return MetricSums(patients, patients * loss, counted)


class ScriptedSite:
    """A site that adds its step to every parameter, and measures what its script says.

    Attributes:
        losses: Validation loss of the model of round 0, 1, ...
        disturb: Changes an answer before it is sent.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        step: float = 1.0,
        losses: Iterable[float] = (),
        disturb: Callable[[Instruction, SiteUpdate], SiteUpdate | Reply] | None = None,
    ) -> None:
        self.name = name
        self.site_info = SiteInfo(name, wardround.__version__, study.digest, 10)
        self._study = study
        self._step = step
        self._losses = itertools.chain(losses, itertools.repeat(0.5))
        self._disturb = disturb

    def reply(self, message: Message) -> Reply:
        kind = message.metadata.message_type
        if kind.startswith("query"):
            return pack_site_info(self.site_info)
        instruction = unpack_instruction(message.content)
        metrics = measured(self._study, 4, next(self._losses))
        if kind == "evaluate":
            return pack_evaluation(
                SiteEvaluation(
                    self.name, instruction.digest, instruction.round, metrics, 0.0, instruction.run
                )
            )
        trained = {name: value + self._step for name, value in instruction.parameters.items()}
        update = SiteUpdate(
            self.name,
            instruction.digest,
            instruction.round,
            instruction.attempt,
            trained,
            10,
            1,
            0.1,
            0.2,
            metrics,
            run=instruction.run,
        )
        changed = self._disturb(instruction, update) if self._disturb else update
        return pack_update(changed) if isinstance(changed, SiteUpdate) else changed


class ScriptedGrid(SiteGrid):
    """A Grid whose sites are scripts."""

    def __init__(self, sites: Iterable[ScriptedSite]) -> None:
        self.sites = list(sites)
        folders = [Path(f"site-{number}") for number in range(len(self.sites))]
        super().__init__(begin_local_run(1))
        self._numbers = MessageNumbers()
        self._site_of = dict(zip(site_contexts(folders, "", "cpu", 1), self.sites, strict=True))
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self._site_of)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            self._waiting[self._numbers.give(message)] = message
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            message = self._waiting.pop(message_id)
            reply = self._site_of[message.metadata.dst_node_id].reply(message)
            yield Message(reply, reply_to=message)


def federate(
    study: Study, folder: Path, *sites: ScriptedSite
) -> tuple[Commit, list[RoundFinished], tuple[RoundRecord, ...]]:
    heard: list[RoundFinished] = []
    commit = run_federation(ScriptedGrid(sites), study, folder, heard.append)
    return commit, heard, tuple(read_records(CheckpointStore(folder).history_path))


def initial(study: Study) -> Parameters:
    return read_parameters(build_network(study, study.federation.seed))


def added(commit: Commit, study: Study) -> float:
    """Return what was added to every parameter since the start."""
    start = initial(study)
    gains = torch.cat([(commit.parameters[n] - start[n]).flatten() for n in start])
    assert torch.allclose(gains, gains[0].expand_as(gains), atol=1e-5)
    return float(gains.mean())


def error_reply(instruction: Instruction, update: SiteUpdate) -> Reply:
    return Error(2, "KeyError in the site's work, see the log")


def wrong_shape(instruction: Instruction, update: SiteUpdate) -> SiteUpdate:
    update.parameters[next(iter(update.parameters))] = torch.zeros(7)
    return update
