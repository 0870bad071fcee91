"""What a site keeps from round to round: its personal model, and what compression left out."""

from wardround.client.session.model_context import PERSONAL, ModelContext
from wardround.client.site.folder import Site
from wardround.client.site.state import SiteState
from wardround.client.training.objectives.base import Objective
from wardround.common.messages.instructions import Instruction
from wardround.common.parameters.compression import CompressionOptions, compress, update_of
from wardround.common.parameters.schema import Parameters, prefixed, under

# Before a parameter's name, in what a site keeps: what a compressed update left out, which it adds
# to its next one.
_RESIDUAL = "residual/"


def state_of(site: Site, instruction: Instruction) -> SiteState:
    """Return what a site keeps of an instruction's run."""
    return SiteState(site.state_folder, instruction.digest, instruction.run)


def memory_before(context: ModelContext, site: Site, instruction: Instruction) -> Parameters:
    """Return what a site kept after the round before an instruction's; nothing if it keeps none."""
    if not context.keeps_state:
        return {}
    return state_of(site, instruction).after(instruction.round - 1)


def compressed(
    context: ModelContext, shared: Parameters, received: Parameters, memory: Parameters
) -> tuple[Parameters, Parameters]:
    """Return what travels, and what it leaves out; the model itself if nothing is saved.

    Args:
        shared: The trained model, as far as all sites share it.
        received: The model before.
        memory: What the site kept, with what earlier updates left out.
    """
    federation = context.study.federation
    if federation.compression == "none":
        return shared, {}
    options = CompressionOptions(kept_fraction=federation.kept_fraction)
    change, before = update_of(shared, received), under(_RESIDUAL, memory)
    return compress(change, federation.compression, options, before or None)


def remember(
    context: ModelContext,
    state: SiteState,
    instruction: Instruction,
    trained: Parameters,
    objective: Objective | None,
    residual: Parameters,
) -> None:
    """Keep what the site's next round starts from.

    Args:
        trained: The whole network.
        residual: What the update left out.
    """
    memory = prefixed(PERSONAL, context.layout.personal_part(trained))
    memory.update(prefixed(_RESIDUAL, residual))
    if objective is not None:
        memory.update(objective.memory())
    state.keep(instruction.round, memory, instruction.kept_round)
