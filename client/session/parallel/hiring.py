"""When a site trains with several processes; they stay for the rounds of a study."""

import logging

import torch
from torch import nn

from wardround.client.session.parallel.crew import Crew
from wardround.client.site.device import choose_device
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)

# They read what a network computes inside, of all examples of a batch, where a process has its
# share of them alone.
_READ_INSIDE = frozenset({"contrastive", "small-features", "distillation"})
_kept: dict[tuple[str, tuple[str, ...]], tuple[Crew, nn.Module]] = {}


def crew_for(
    study: Study,
    network: nn.Module,
    device: torch.device,
    devices: tuple[str, ...],
    annotated: tuple[int, ...] | None,
) -> Crew | None:
    """Return the processes of a site's local step; None where it is made by one.

    Those of another study are ended: the devices are for one at a time.

    Args:
        network: The study's, on the first device.
        device: What the site trains on here; a simulation chooses it, whatever a site's file says.
        devices: As ``devices`` in site.toml.
        annotated: The classes that the site has annotated.

    Raises:
        InputError: A device is not there.
        RunError: A process cannot be started.
    """
    if not devices or choose_device(devices[0]) != device:
        return None
    objective = plan_of(study).objective
    if objective in _READ_INSIDE:
        logger.warning("one device of %d: objective=%s reads features", len(devices), objective)
        return None
    key = (study.digest, devices)
    held = _kept.get(key)
    if held is not None and held[0].is_alive and held[1] is network:
        return held[0]
    if held is not None and not held[0].is_alive:
        logger.warning("a training process had ended between two rounds: all are started again")
    end_crews()
    _kept[key] = (Crew(study, network, devices, annotated), network)
    return _kept[key][0]


def end_crews() -> None:
    """End the further processes of all studies."""
    for crew, _ in _kept.values():
        crew.close()
    _kept.clear()
