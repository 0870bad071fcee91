"""A masked round at the server: five stages, at whose end the sum is known and nothing else.

The first stage is the training: a site answers with its keys. Who refuses or is missing in a stage
is left out of those after it, as long as enough are left; with fewer the round ends without a sum.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import RecordDict

from wardround.common.errors import RunError
from wardround.common.messages.instructions import TRAIN
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
from wardround.common.parameters.schema import Model, schema
from wardround.common.privacy.secure_aggregation.context import Context
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.messages import Identities
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.server import ServerRound
from wardround.common.runtime.fields import plain
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import Progress
from wardround.server.rounds.updates import RoundResults
from wardround.server.sites.exchange import Node, Post, Reply, to_all
from wardround.server.sites.intake import RefusedReplyError, taking_in
from wardround.server.strategies.aggregation.masked_sum import MaskedSum, decode_sum


class MaskedRounds:
    """The masked rounds of a run.

    Args:
        identities: The sites' public keys by name.

    Raises:
        RunError: The study masks nothing, or nobody's key is known.
    """

    def __init__(self, study: Study, identities: Identities) -> None:
        plan = plan_masking(study)
        if plan is None or not identities:
            msg = (
                "this server does not know the sites' public keys, so they cannot mask their "
                "updates: put peers.json into its folder."
            )
            raise RunError(msg)
        self._study, self._plan, self._identities = study, plan, identities

    def sum_up(
        self,
        nodes: Sequence[Node],
        progress: Progress,
        sent: Model,
        post: Post,
        results: RoundResults,
    ) -> MaskedSum:
        """Have the sites train, and return their sum; the results know who is in it.

        Args:
            progress: The commit that the round starts from.
            sent: The model that the sites are sent.

        Raises:
            RunError: Too few sites stayed to the end: there is no sum, and nothing was revealed.
        """
        layout = VectorLayout.of(self._study, self._plan, schema(sent))
        context = Context(
            progress.digest,
            progress.run,
            results.number,
            0,
            layout.configuration.digest,
            bytes.fromhex(digest(sent)),
        )
        server = ServerRound(context, layout.configuration, self._identities)
        stages = _Stages(context, server, post, results)
        try:
            words = stages.run(nodes)
            found = decode_sum(words, layout, sent, progress.run, results.number)
        except MaskingError as error:
            reasons = "; ".join(f"{one.site}: {one.reason}" for one in results.refusals)
            msg = (
                f"round {results.number} ended without a sum ({plain(error)} {reasons}) Nothing of "
                "any site was revealed. Put right what these reasons say, and start a new run."
            )
            raise RunError(msg) from None
        size = words.nbytes
        for name in server.survivors:
            results.count_masked(name, size)
        return found


@dataclass(frozen=True, slots=True)
class _Stages:
    """The stages of one attempt, one after the other."""

    context: Context
    server: ServerRound
    post: Post
    results: RoundResults

    def run(self, nodes: Sequence[Node]) -> Words:
        """Return the words of the sum.

        Raises:
            MaskingError: Too few sites are left.
        """
        server, post, name = self.server, self.post, f"round {self.results.number}"
        trained = post.exchange.ask(
            nodes, TRAIN, post.instruction, name, post.deadline_seconds, post.addressed
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
                StageAsked(about.study, about.run, about.round, about.attempt, stage, given)
            )

        def own(content: RecordDict, node: Node) -> RecordDict:
            return content if isinstance(given, bytes) else asked(given[node.site])

        common = given if isinstance(given, bytes) else b""
        replies = self.post.exchange.ask(
            nodes,
            MASKING,
            lambda: asked(common),
            f"round {about.round}, {stage}",
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
