"""An update of a canary round: packed, compressed and checked as any, of what was not learnt."""

import torch
from flwr.app import RecordDict

from wardround.client.egress.guard import Count, Exactly, MessageSchema
from wardround.client.egress.message_schema import update_arrays
from wardround.client.session.model_context import ModelContext
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import SiteUpdate, pack_update
from wardround.common.models.sharing import CONTROL
from wardround.common.parameters.compression import CompressionOptions, compress, update_of
from wardround.common.parameters.schema import Parameters


def update_of_canary(
    context: ModelContext, instruction: Instruction, site: str, trained: Parameters
) -> SiteUpdate:
    """Return the update from a model that was sent to a trained one, as it would travel.

    What a strategy asks for beside the model has its shape, and no content.
    """
    federation, shared = context.study.federation, context.layout.shared_part(trained)
    sent = shared
    if federation.compression != "none":
        options = CompressionOptions(kept_fraction=federation.kept_fraction)
        change = update_of(shared, instruction.parameters)
        sent, _ = compress(change, federation.compression, options, None)
    auxiliary = {}
    for spec in update_arrays(context).get("auxiliary", ()):
        fill = 0.0 if spec.name.startswith(CONTROL) else 1.0  # a loss is not 0
        auxiliary[spec.name] = torch.full(spec.shape, fill, dtype=getattr(torch, spec.dtype))
    return SiteUpdate(
        site,
        instruction.digest,
        instruction.round,
        instruction.attempt,
        sent,
        examinations=1,
        updates=1,
        seconds=0.0,
        training_loss=float("nan"),
        auxiliary=auxiliary,
        run=instruction.run,
    )


def carried(context: ModelContext, instruction: Instruction, site: str) -> RecordDict:
    """Return the message that sends a model back unchanged, as the study's updates travel.

    Every number in it is the server's own or a constant: nothing of a patient, and none is read.
    """
    model = {name: value.clone() for name, value in instruction.parameters.items()}
    return pack_update(update_of_canary(context, instruction, site, model))


def carried_schema(context: ModelContext, instruction: Instruction, site: str) -> MessageSchema:
    """Return what such a message may hold."""
    header = {
        "site": Exactly(site),
        "digest": Exactly(context.study.digest),
        "run": Exactly(instruction.run),
        "round": Exactly(instruction.round),
        "attempt": Exactly(instruction.attempt),
    }
    one = Count(least=1, most=1)
    facts = {"facts": {"examinations": one, "updates": one}}
    return MessageSchema({"header": header}, facts, update_arrays(context))
