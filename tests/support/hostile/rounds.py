"""Rounds of honest sites with one among them that sends what it likes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from flwr.app import Message, RecordDict
from tests.support.hostile.messages import Mutation, is_plain
from tests.support.scripted_sites import Reply, ScriptedSite, federate, study_with

from wardround.common.messages.instructions import EVALUATE, TRAIN
from wardround.common.study.study import Study

HONEST = ["north", "south"]


class HostileSite(ScriptedSite):
    """A site that changes each reply to an instruction before it is sent."""

    def __init__(self, study: Study, attack: Sequence[Mutation]) -> None:
        super().__init__("evil", study)
        self._attack = attack

    def reply(self, message: Message) -> Reply:
        content = super().reply(message)
        if message.metadata.message_type in (TRAIN, EVALUATE) and isinstance(content, RecordDict):
            for change in self._attack:
                change(content)
        return content


def attack_rounds(folder: Path, attack: Sequence[Mutation], **federation: object) -> list[str]:
    """Run two rounds under attack, and return why the hostile site was refused.

    Raises:
        AssertionError: An honest site's update was lost, or the run is spoilt.
    """
    study = study_with(**{"rounds": 2, "minimum_sites": 2, **federation})
    honest = [ScriptedSite(name, study) for name in HONEST]
    commit, _, records = federate(study, folder, HostileSite(study, attack), *honest)
    trained = [record for record in records if record.sites]
    assert len(trained) == 2
    asynchronous = study.federation.buffer_size is not None
    for record in trained:
        there = {site.site for site in record.sites}
        assert asynchronous or there >= set(HONEST), "an honest site's update is counted"
    assert all(torch.isfinite(tensor).all() for tensor in commit.parameters.values())
    refusals = [refusal for record in records for refusal in record.refusals]
    assert {refusal.site for refusal in refusals} <= {"evil"}, "no honest site is refused"
    assert all(is_plain(refusal.reason) for refusal in refusals)
    return [refusal.reason for refusal in refusals]
