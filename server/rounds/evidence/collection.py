"""Asking the sites for the packs of evidence that a study names, in at most two exchanges."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeVar

from flwr.app import RecordDict
from flwr.serverapp import Grid

from wardround.common.errors import RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.packs import (
    PACK,
    PLACEMENTS,
    SitePacks,
    SitePlacements,
    question_of,
    unpack_packs,
    unpack_placements,
)
from wardround.common.metrics.packs.intervals import IntervalPack, PlacementSums
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import Commit
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Exchange, Node
from wardround.server.sites.intake import RefusedReplyError, taking_in

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer", SitePacks, SitePlacements)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the sites told of a model.

    Attributes:
        sites: By name, in order.
        placements: By name, of those that answered the second exchange.
        refused: Who told nothing, or not the second time, and why.
    """

    sites: Mapping[str, SitePacks]
    placements: Mapping[str, PlacementSums] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def merged_counts(self) -> ScoreCounts | None:
        """Return the histograms of all sites together; None where no site told any."""
        return merged_counts(self.sites)


def collect_evidence(
    grid: Grid,
    study: Study,
    nodes: Sequence[Node],
    commit: Commit,
    deadlines: Deadlines | None = None,
) -> Evidence:
    """Ask each site for the study's packs of a committed model; who refuses is left out.

    Args:
        commit: Its model is sent, and its run and round named.
    """
    progress, refused = commit.progress, dict[str, str]()
    instruction = Instruction(progress.digest, progress.run, progress.round, {}, split="test")
    asking = _Asking(grid, nodes, deadlines or Deadlines(study.federation.deadline_seconds))

    def first() -> RecordDict:
        return question_of(instruction, commit.parameters, None)

    packs = asking.ask(
        PACK, first, lambda content: unpack_packs(content, study), instruction, refused
    )
    merged = merged_counts(packs)
    if merged is None or not merged.positives.any():
        return Evidence(packs, {}, refused)

    def second() -> RecordDict:
        return question_of(instruction, commit.parameters, merged)

    told = [node for node in nodes if node.site in packs]
    asking = _Asking(grid, told, asking.deadlines, {s: one.patients for s, one in packs.items()})
    placed = asking.ask(
        PLACEMENTS, second, lambda content: unpack_placements(content, study), instruction, refused
    )
    return Evidence(packs, {site: one.sums for site, one in placed.items()}, refused)


def merged_counts(sites: Mapping[str, SitePacks]) -> ScoreCounts | None:
    """Return the histograms of some sites together; None where they have none."""
    found = [one.packs.get("intervals") for one in sites.values()]
    counts = [
        one.counts for one in found if isinstance(one, IntervalPack) and one.counts is not None
    ]
    return reduce(ScoreCounts.plus, counts) if counts else None


@dataclass(frozen=True, slots=True)
class _Asking:
    grid: Grid
    nodes: Sequence[Node]
    deadlines: Deadlines
    patients: Mapping[str, int] = field(default_factory=dict)  # as the first exchange told

    def ask(
        self,
        kind: str,
        content: Callable[[], RecordDict],
        unpack: Callable[[RecordDict], _Answer],
        instruction: Instruction,
        refused: dict[str, str],
    ) -> dict[str, _Answer]:
        """Return what each site answers, by name; ``refused`` takes in who does not."""
        said: dict[str, _Answer] = {}
        exchange = Exchange(self.grid, self.deadlines.absence_seconds)
        deadline = self.deadlines.deadline_seconds
        for reply in exchange.ask(tuple(self.nodes), kind, content, "evidence", deadline):
            site = reply.node.site
            try:
                with taking_in(site):
                    if reply.content is None:
                        raise RunError(reply.reason)
                    answer = unpack(reply.content)
                    _check_about(answer, site, instruction)
                    _check_patients(answer, self.patients.get(site, 0))
                    said[site] = answer
            except RefusedReplyError as error:
                logger.warning("no evidence site=%s: %s", site, error)
                refused[site] = str(error)
        return dict(sorted(said.items()))


def _check_about(answer: SitePacks | SitePlacements, site: str, instruction: Instruction) -> None:
    """Check that an answer is of this site and of this model.

    Raises:
        RunError: It is not.
    """
    about = (answer.site, answer.digest, answer.run, answer.round)
    if about != (site, instruction.digest, instruction.run, instruction.round):
        msg = "its evidence is of another site, study or model."
        raise RunError(msg)


def _check_patients(answer: SitePacks | SitePlacements, patients: int) -> None:
    """Check that a second answer is of no more patients than the first.

    Raises:
        RunError: It is.
    """
    if isinstance(answer, SitePlacements) and (answer.sums.patients > patients).any():
        msg = f"its placements are of more than the {patients} test patients that it told of."
        raise RunError(msg)
