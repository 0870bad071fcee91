"""Asking the sites for statistics, and keeping what they answered as a file."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from flwr.serverapp import Grid

from wardround.common.errors import RunError
from wardround.common.messages.statistics import (
    STATISTICS,
    SiteStatistics,
    check_statistics,
    question_content,
    unpack_statistics,
)
from wardround.common.parameters.schema import Parameters
from wardround.common.study.study import Study
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Exchange, Node
from wardround.server.sites.intake import RefusedReplyError, taking_in

logger = logging.getLogger(__name__)
_PATIENTS = "patients"


@dataclass(frozen=True, slots=True)
class Collected:
    """What the sites answered.

    Attributes:
        sites: By name, in order.
        refused: Who gave none, and why.
    """

    sites: Mapping[str, SiteStatistics]
    refused: Mapping[str, str] = field(default_factory=dict)


def collect_statistics(
    grid: Grid, study: Study, nodes: Iterable[Node], deadlines: Deadlines | None = None
) -> Collected:
    """Ask each site for the statistics of its training data, once.

    Raises:
        RunError: Fewer than ``federation.minimum_sites`` answered.
    """
    deadlines = deadlines or Deadlines(study.federation.deadline_seconds)
    said: dict[str, SiteStatistics] = {}
    refused: dict[str, str] = {}
    exchange = Exchange(grid, deadlines.absence_seconds)
    for reply in exchange.ask(
        tuple(nodes),
        STATISTICS,
        lambda: question_content(study),
        "statistics",
        deadlines.deadline_seconds,
    ):
        site = reply.node.site
        try:
            with taking_in(site):
                if reply.content is None:
                    raise RunError(reply.reason)
                answer = unpack_statistics(reply.content, study)
                if answer.site != site:
                    msg = "its statistics name another site."
                    raise RunError(msg)
                said[site] = answer
        except RefusedReplyError as error:
            logger.warning("no statistics site=%s: %s", site, error)
            refused[site] = str(error)
    _require_enough(study, said, refused)
    return Collected(dict(sorted(said.items())), refused)


def _require_enough(
    study: Study, said: Mapping[str, SiteStatistics], refused: Mapping[str, str]
) -> None:
    needed = study.federation.minimum_sites
    if len(said) < needed:
        why = "; ".join(f"{site}: {reason}" for site, reason in refused.items()) or "no site"
        msg = (
            f"{len(said)} sites gave statistics, and federation.minimum_sites = {needed} are "
            f"needed ({why})."
        )
        raise RunError(msg)


def as_parameters(collected: Collected) -> Parameters:
    """Return what the sites answered as named tensors, which a model file holds."""
    found: Parameters = {}
    for name, said in collected.sites.items():
        found[f"{name}/{_PATIENTS}"] = torch.tensor(float(said.patients), dtype=torch.float64)
        for histogram, cells in said.cells.items():
            found[f"{name}/{histogram}"] = torch.from_numpy(cells.copy())
    return found


def from_parameters(parameters: Parameters, study: Study) -> Collected:
    """Return what :func:`as_parameters` made into tensors.

    Raises:
        RunError: They are no statistics of this study.
    """
    sites: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in parameters.items():
        site, _, histogram = name.rpartition("/")
        sites.setdefault(site, {})[histogram] = tensor
    found = {}
    for site, tensors in sorted(sites.items()):
        patients = tensors.pop(_PATIENTS, torch.zeros(()))
        cells = {name: tensor.numpy() for name, tensor in tensors.items()}
        found[site] = SiteStatistics(site, study.digest, int(patients), cells)
        check_statistics(found[site], study)
    return Collected(found)
