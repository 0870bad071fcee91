"""A Grid with traitors: hostile sites answer last, and may know what the others answered.

This is the omniscient adversary of the literature: it sees every honest update of the round before
it sends its own. No real hospital could; a rule that withstands it withstands less.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from flwr.app import Message, RecordDict

from wardround.common.flower.messages.content import arrays_of, configs_of
from wardround.common.flower.site_grid import SiteGrid, begin_local_run
from wardround.common.messages.instructions import TRAIN
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.compression import (
    CompressionOptions,
    apply_update,
    compress,
    decompress,
    update_of,
)
from wardround.common.parameters.schema import Parameters, schema
from wardround.common.runtime.seeds import generator_for
from wardround.simulations.adversaries.manipulations import OMNISCIENT, forge_update
from wardround.simulations.adversaries.roles import Role

_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Wire:
    """How the sites' models travel; a hostile site that compresses keeps no residual."""

    kind: str = "none"
    options: CompressionOptions = field(default_factory=CompressionOptions)

    def read(self, reply: Message, start: Parameters) -> Parameters | None:
        """Return the model in a reply, None where it is an error or a refusal."""
        if reply.has_error() or _MODEL not in arrays_of(reply.content):
            return None
        arrays = from_array_record(arrays_of(reply.content)[_MODEL])
        if self.kind == "none":
            return arrays
        return apply_update(start, decompress(arrays, self.kind, self.options, schema(start)))

    def write(self, model: Parameters, start: Parameters) -> Parameters:
        """Return the arrays that a site would send for a model."""
        if self.kind == "none":
            return model
        return compress(update_of(model, start), self.kind, self.options)[0]


@dataclass(slots=True)
class _Campaign:
    """The training orders that were sent at once.

    Attributes:
        honest: Honest models by message id, in the order of sending; None until they are there,
            empty where there is none (a refusal). Only kept where a hostile site wants to know.
    """

    round: int
    start: Parameters
    roles: dict[str, Role]
    honest: dict[str, Parameters | None] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(model is not None for model in self.honest.values())

    def waits(self, message_id: str) -> bool:
        """Return whether a reply has to wait for the honest ones."""
        role = self.roles.get(message_id)
        return role is not None and role.kind in OMNISCIENT and not self.is_complete


class AdversarialGrid(SiteGrid):
    """Passes everything on to another grid, and rewrites what hostile sites answer to training."""

    def __init__(
        self, inner: SiteGrid, roles: Mapping[int, Role], run_id: int, wire: Wire | None = None
    ) -> None:
        super().__init__(begin_local_run(run_id))
        self._wire = wire or Wire()
        self._inner = inner
        self._roles = dict(roles)
        self._campaigns: dict[str, _Campaign] = {}
        self._held: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass messages on; those that order a training are a campaign."""
        listed = list(messages)
        ids = list(self._inner.push_messages(listed))
        training = {
            message_id: message
            for message_id, message in zip(ids, listed, strict=True)
            if message.metadata.message_type == TRAIN
        }
        roles = {
            message_id: self._roles[message.metadata.dst_node_id]
            for message_id, message in training.items()
            if message.metadata.dst_node_id in self._roles
        }
        if roles:
            self._begin(training, roles)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; a hostile one waits for the honest ones."""
        wanted = list(message_ids)
        while True:
            asked = self._asked(wanted)
            arrived = list(self._inner.pull_messages(asked)) if asked else []
            for reply in arrived:
                self._take(reply)
            ready = [i for i in wanted if i in self._held and not self._waits(i)]
            if ready or not arrived:
                return [self._reply(message_id) for message_id in ready]

    def close(self) -> None:
        """Free what the inner grid holds."""
        self._inner.close()

    def _begin(self, training: Mapping[str, Message], roles: dict[str, Role]) -> None:
        content = next(iter(training.values())).content
        number = int(configs_of(content)["instruction"]["round"])  # type: ignore[arg-type] # our own
        # Answers to an older round are late; nobody will ask what they should have been.
        self._campaigns = {i: c for i, c in self._campaigns.items() if c.round == number}
        campaign = _Campaign(number, from_array_record(arrays_of(content)[_MODEL]), roles)
        if any(role.kind in OMNISCIENT for role in roles.values()):
            campaign.honest = {i: None for i in training if i not in roles}
        self._campaigns.update(dict.fromkeys(training, campaign))

    def _asked(self, wanted: Sequence[str]) -> list[str]:
        """Return what must be pulled: what is wanted, and the honest answers it waits for."""
        asked = dict.fromkeys(wanted)
        for message_id in wanted:
            if self._waits(message_id):
                honest = self._campaigns[message_id].honest
                asked.update(dict.fromkeys(i for i, model in honest.items() if model is None))
        return [message_id for message_id in asked if message_id not in self._held]

    def _waits(self, message_id: str) -> bool:
        campaign = self._campaigns.get(message_id)
        return campaign is not None and campaign.waits(message_id)

    def _take(self, reply: Message) -> None:
        message_id = reply.metadata.reply_to_message_id
        self._held[message_id] = reply
        campaign = self._campaigns.get(message_id)
        if campaign is not None and message_id in campaign.honest:
            campaign.honest[message_id] = self._wire.read(reply, campaign.start) or {}

    def _reply(self, message_id: str) -> Message:
        reply = self._held.pop(message_id)
        campaign = self._campaigns.pop(message_id, None)
        if campaign is None or message_id not in campaign.roles:
            return reply
        own = self._wire.read(reply, campaign.start)
        if own is None:
            return reply
        site = str(configs_of(reply.content)["header"]["site"])
        forged = _forge(campaign, campaign.roles[message_id], own, site)
        records = {name: record for name, record in reply.content.items() if name != _MODEL}
        sent = to_array_record(self._wire.write(forged, campaign.start))
        reply.content = RecordDict({**records, _MODEL: sent})
        return reply


def _forge(campaign: _Campaign, role: Role, own: Parameters, site: str) -> Parameters:
    """Return the model a hostile site sends; integer buffers and unknown names stay its own."""
    drawing = generator_for("forgery", role.seed, site, campaign.round)
    # A site that is asked anew, alone, has nobody to look at but itself.
    models = [model for model in campaign.honest.values() if model] or [own]
    forged: Parameters = {}
    for name, tensor in own.items():
        start = campaign.start.get(name)
        if start is None or not tensor.is_floating_point():
            forged[name] = tensor
            continue
        honest = torch.stack([model[name].float() - start.float() for model in models])
        update = tensor.float() - start.float()
        sent = forge_update(role.kind, role.strength, update, honest, drawing)
        forged[name] = (start.float() + sent).to(tensor.dtype)
    return forged
