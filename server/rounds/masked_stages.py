"""The stages of one attempt at a masked sum: asked of the sites that are left, and taken in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flwr.app import RecordDict

from wardround.common.errors import RunError
from wardround.common.messages.instructions import EVALUATE, TRAIN
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.masking import (
    ADVERTISE,
    AGREE,
    MASK,
    MASKING,
    SHARE,
    UNMASK,
    StageAsked,
    StageSaid,
    pack_asked,
    unpack_said,
)
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Model
from wardround.common.privacy.secure_aggregation.context import Context
from wardround.common.privacy.secure_aggregation.server import GroupSum, ServerRound
from wardround.server.checkpoints.store import Progress
from wardround.server.rounds.updates import RoundResults
from wardround.server.sites.exchange import Node, Post, Reply, to_all
from wardround.server.sites.intake import RefusedReplyError, taking_in

_REFUSED_BY_MASKING = "masking"  # how a site calls its refusals of secure aggregation


@dataclass(frozen=True, slots=True)
class About:
    """What sites add up.

    Attributes:
        number: Of the round, or of the one after the model that is measured.
        sent: What they are sent.
    """

    progress: Progress
    number: int
    layout: VectorLayout
    sent: Model
    measures: bool = False

    def context(self, configuration: bytes, attempt: int) -> Context:
        """Return what every key and signature is about."""
        return Context(
            self.progress.digest,
            self.progress.run,
            self.number,
            attempt,
            configuration,
            bytes.fromhex(digest(self.sent)),
        )


@dataclass(slots=True)
class Stages:
    """The stages of one attempt, one after the other.

    Attributes:
        refused_by_masking: Whether a site refused because of what it masked, or told, before.
    """

    context: Context
    server: ServerRound
    post: Post
    results: RoundResults
    measures: bool = False
    refused_by_masking: bool = False

    def run(self, nodes: Sequence[Node]) -> tuple[GroupSum, ...]:
        """Return the sum, or that of each group.

        Raises:
            MaskingError: Too few sites are left.
        """
        server, post = self.server, self.post
        instruction = partial(post.instruction, self.context.attempt)
        trained = post.exchange.ask(
            nodes,
            EVALUATE if self.measures else TRAIN,
            instruction,
            self._name,
            post.deadline_seconds,
            post.addressed,
        )
        there = self._take(trained, ADVERTISE, lambda said: server.take_advertisement(said.signed))
        roster = server.close_roster()
        there = self._ask(there, SHARE, roster, lambda said: server.take_shares(said.signed))
        delivered = server.close_shares()
        there = self._ask(there, MASK, delivered, self._add)
        named = server.close_masked()
        there = self._ask(there, AGREE, named, lambda said: server.take_agreement(said.signed))
        agreed = server.close_agreements()
        self._ask(there, UNMASK, agreed, lambda said: server.take_unmasking(said.signed))
        return server.unmask()

    @property
    def _name(self) -> str:
        kind = "measurement" if self.measures else "round"
        return f"{kind} {self.results.number}"

    def _add(self, said: StageSaid) -> None:
        if said.words is None:
            msg = "the masked vector is missing: not counted."
            raise RunError(msg)
        self.server.take_masked(said.signed, said.words)

    def _ask(
        self,
        nodes: Sequence[Node],
        stage: str,
        given: bytes | Mapping[str, bytes],
        take: Callable[[StageSaid], None],
    ) -> list[Node]:
        """Ask a stage of the sites that are left; return who answered it."""
        about = self.context

        def asked(given: bytes) -> RecordDict:
            return pack_asked(
                StageAsked(
                    about.study,
                    about.run,
                    about.round,
                    about.attempt,
                    stage,
                    given,
                    self.measures,
                )
            )

        def own(content: RecordDict, node: Node) -> RecordDict:
            return content if isinstance(given, bytes) else asked(given[node.site])

        common = given if isinstance(given, bytes) else b""
        replies = self.post.exchange.ask(
            nodes,
            MASKING,
            lambda: asked(common),
            f"{self._name}, {stage}",
            self.post.deadline_seconds,
            to_all if isinstance(given, bytes) else own,
        )
        return self._take(replies, stage, take)

    def _take(
        self, replies: Iterable[Reply], stage: str, take: Callable[[StageSaid], None]
    ) -> list[Node]:
        there = []
        for reply in replies:
            site = reply.node.site
            if reply.is_missing:
                self.post.missed(reply)
            code = "" if reply.refusal is None else reply.refusal.code
            self.refused_by_masking |= code == _REFUSED_BY_MASKING
            try:
                with taking_in(site):
                    if reply.content is None:
                        raise RunError(reply.reason)
                    said = unpack_said(reply.content)
                    if (said.site, said.stage) != (site, stage):
                        msg = f"an answer of {said.site} to {said.stage} came: not counted."
                        raise RunError(msg)
                    take(said)
            except RefusedReplyError as error:
                self.results.refuse(site, f"{stage}: {error}")
                continue
            there.append(reply.node)
            del reply  # or its vector is still there while the next one arrives
        return there
