"""The engine "stacked": small networks of several sites trained as one, in one process.

It is the in-process engine, told at the first instruction of a round which other sites wait for
theirs. They are trained together; then each answers in its turn, as in any engine.
"""

import logging
from collections.abc import Mapping, Sequence
from math import prod

import torch
from flwr.app import Context, Message

from wardround.client.app import held_session
from wardround.client.session.ahead import train_ahead, why_not_ahead
from wardround.client.session.session import SiteSession
from wardround.client.training.schedule import FullMemoryError
from wardround.common.errors import InputError, WardroundError
from wardround.common.messages.instructions import TRAIN, unpack_instruction
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import parameter_count
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
# Bytes of a step's inputs, of all sites of a stack. On a CPU what a larger one saves in calls it
# loses again where its activations no longer fit into the cache; a GPU wants it large.
CPU_BYTES, GPU_BYTES = 2**20, 2**26
_FEWEST = 4  # sites, whatever their inputs
# Up to where a stack was measured to win on a CPU, by network: bytes of a site's inputs at a step,
# and weights of a site, which the optimiser of a stack goes through more often than torch's.
_WINS_UP_TO = {"mlp": (2**14, 2**14), "small-cnn": (2**14, 2**15), "unet": (2**17, 2**21)}


class StacksWork:
    """Trains ahead, together, what sites of one process are about to be asked for."""

    def __init__(self, contexts: Mapping[int, Context]) -> None:
        self._contexts = dict(contexts)
        self._stack_of: dict[str, tuple[Message, ...]] = {}  # by message, until it is trained
        self._most: int | None = None  # sites, half of a stack that did not fit

    def __call__(self, message: Message, waiting: Sequence[Message]) -> None:
        """Train for a message, and for those of its round that wait, before it is worked on."""
        if message.metadata.message_type != TRAIN:
            return
        own = message.metadata.message_id
        if own not in self._stack_of:
            self._plan([message, *waiting])
        stack = self._stack_of.pop(own)
        if len(stack) < 2:
            return  # alone, or trained with an earlier one
        asked = [(session, unpack_instruction(m.content)) for m, session in self._held(stack)]
        try:
            train_ahead(asked)
        except FullMemoryError as error:
            self._most = len(asked) // 2
            logger.warning("a stack of %d sites is too large: %s", len(asked), error)
        except WardroundError:
            logger.info("the stack is left: its sites train in turn")
        for other in stack:
            if other is not message:
                self._stack_of[other.metadata.message_id] = ()

    def _plan(self, messages: Sequence[Message]) -> None:
        """Divide the sites that are asked now into stacks, of as many steps where it can be."""
        group = messages[0].metadata.group_id
        asked = [
            m for m in messages if m.metadata.message_type == TRAIN and m.metadata.group_id == group
        ]
        self._stack_of = {m.metadata.message_id: () for m in asked}
        held = sorted(self._held(asked), key=lambda pair: -pair[1].steps)
        if not held:
            return
        context = held[0][1].context
        most = self._most or sites_a_stack(context.study, context.device)
        for begin in range(0, len(held), most):
            stack = tuple(message for message, _ in held[begin : begin + most])
            self._stack_of.update(dict.fromkeys([m.metadata.message_id for m in stack], stack))

    def _held(self, messages: Sequence[Message]) -> list[tuple[Message, SiteSession]]:
        """Return those whose sites have been allowed to work, and have their data."""
        found = [(m, held_session(self._contexts[m.metadata.dst_node_id])) for m in messages]
        return [(message, session) for message, session in found if session is not None]


def sites_a_stack(study: Study, device: torch.device) -> int:
    """Return how many sites of a study are trained at a time."""
    most_bytes = CPU_BYTES if device.type == "cpu" else GPU_BYTES
    return max(_FEWEST, most_bytes // _step_bytes(study))


def is_faster_stacked(study: Study, sites: int, device: str) -> bool:
    """Return whether a stack was measured to win over one site after the other.

    ``python -m benchmarks.support.stacked_sites`` measures it. Of a GPU nobody has, nor of a
    network that stands not in :data:`_WINS_UP_TO`.
    """
    if device != "cpu" or sites < _FEWEST:
        return False
    most_bytes, most_weights = _WINS_UP_TO.get(study.model.network, (0, 0))
    if _step_bytes(study) > most_bytes or _reason(study):
        return False
    return parameter_count(build_network(study, 0)) <= most_weights


def _step_bytes(study: Study) -> int:
    """Return the bytes of what the network of one site takes in at a step."""
    values = study.data.covariate_width
    if study.input_size is not None:
        values += study.data.input_planes * prod(study.input_size)
    return 4 * max(1, values) * study.training.batch_size * study.training.patches_per_image


def require_stackable(study: Study) -> None:
    """Refuse a study whose sites cannot be trained together.

    Raises:
        InputError: Says why.
        StudyError: The study's network cannot be built.
    """
    reason = _reason(study)
    if reason:
        msg = f"the engine 'stacked' cannot train this study: {reason}. Use --engine auto."
        raise InputError(msg)


def _reason(study: Study) -> str:
    return "it has hostile sites" if study.simulation.adversary else why_not_ahead(study)
