"""A masked round at the server: five stages, at whose end the sum is known and nothing else.

The first stage is the training: a site answers with its keys. Who refuses or is missing in a stage
is left out of those after it, as long as enough are left. With fewer, and before anything was
masked, all are asked again, for new keys and with what they trained; after it the round is over at
every site, and the run goes on without it.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wardround.common.errors import RunError, WardroundError
from wardround.common.files.atomic import replace_file
from wardround.common.messages.masked_vector import Counted, VectorLayout
from wardround.common.messages.masking import (
    END,
    MASKING,
    StageAsked,
    pack_asked,
)
from wardround.common.metrics.sums import summarise
from wardround.common.parameters.schema import Model, schema
from wardround.common.privacy.secure_aggregation.context import MOST_ATTEMPTS
from wardround.common.privacy.secure_aggregation.messages import Identities
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.server import GroupSum, ServerRound, Stage
from wardround.common.runtime.fields import plain
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.strategy import fewest_sites, plan_of
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import Measurement, RefusalRecord
from wardround.server.checkpoints.lost_sites import ALL_SITES as LOST
from wardround.server.checkpoints.store import Progress
from wardround.server.rounds.evaluation import ALL_SITES, Measured
from wardround.server.rounds.masked_stages import About, Stages
from wardround.server.rounds.updates import RoundResults
from wardround.server.sites.exchange import Exchange, Node, Post
from wardround.server.strategies.aggregation.masked_sum import MaskedSum, decode_sum, of_group

logger = logging.getLogger(__name__)
_FAREWELL_SECONDS = 20.0
ATTEMPT_FILE, MEASURED_ATTEMPT_FILE = "attempt.json", "measured-attempt.json"


class MaskedRounds:
    """The masked rounds of a run.

    Args:
        identities: The sites' public keys by name.
        folder: Of the commits, where it is written down which attempt a round is at.
        trainable: The names of what a gradient changes in the study's network.

    Raises:
        RunError: The study masks nothing, or nobody's key is known.
    """

    def __init__(
        self, study: Study, identities: Identities, folder: Path, trainable: frozenset[str]
    ) -> None:
        plan = plan_masking(study)
        if plan is None or not identities:
            msg = (
                "this server does not know the sites' public keys, so they cannot mask their "
                "updates: take them in with 'wardround server peers import'."
            )
            raise RunError(msg)
        self._study, self._plan, self._identities = study, plan, identities
        self._fewest_groups = fewest_sites(plan_of(study)) if plan.groups > 1 else 1
        self._folder, self._trainable = folder, trainable

    def sum_up(
        self,
        nodes: Sequence[Node],
        progress: Progress,
        sent: Model,
        beside: Model,
        post: Post,
        results: RoundResults,
    ) -> tuple[MaskedSum, ...]:
        """Have the sites train, and return their sum, or each group's; the results know who is in.

        Args:
            progress: The commit that the round starts from.
            sent: The model that the sites are sent.
            beside: What they are sent with it, e.g. a control variate.

        Returns:
            None at all where too few sites stayed: the round is lost, and nothing was revealed.

        Raises:
            RunError: Too few sites trained.
        """
        layout = VectorLayout.of(self._study, self._plan, schema(sent), self._trainable)
        about = About(progress, results.number, layout, {**sent, **beside})
        sums = self._sums(nodes, about, post, results)
        found = self._decoded(sums, layout, sent, progress.run, results) if sums else ()
        for one in sums:
            for name in one.sites:
                results.count_masked(name, one.words.nbytes)
        return found

    def measure(
        self, nodes: Sequence[Node], progress: Progress, model: Model, post: Post
    ) -> Measured:
        """Have the sites measure a model on their validation patients, and return it of all.

        Args:
            progress: The commit that the model is of.
            post: Asks the sites to evaluate.
        """
        layout = VectorLayout.of_measurement(self._study, self._plan)
        results = RoundResults(progress.round + 1)
        about = About(progress, results.number, layout, model, measures=True)
        values: tuple[Measurement, ...] = ()
        try:
            for one in self._sums(nodes, about, post, results):
                counted = layout.decode(one.words, {}).counted
                _say_what_cannot_be_true(results, counted)
                if counted.metrics is not None:
                    said = summarise(counted.metrics, self._study)
                    values = (Measurement(ALL_SITES, "validation", said),)
        except WardroundError as error:  # too few answered
            results.refuse(LOST, plain(error))
        refusals = tuple(replace(one, asked="validation") for one in results.refusals)
        return Measured(values, refusals)

    def _sums(
        self, nodes: Sequence[Node], about: "About", post: Post, results: RoundResults
    ) -> tuple[GroupSum, ...]:
        """Return the sums of a round or a measurement, after another attempt where that helps.

        Raises:
            RunError: Too few sites trained.
        """
        configuration, number = about.layout.configuration, about.number
        attempt = self._attempt_of(number, about.measures)
        context = about.context(configuration.digest, attempt)
        fewest = self._fewest_groups if configuration.groups > 1 else 1
        while True:
            server = ServerRound(context, configuration, self._identities, fewest)
            stages = Stages(context, server, post, results, about.measures)
            try:
                sums = stages.run(nodes)
            except MaskingError as error:
                why = plain(error)
            else:
                for name in sorted(server.false_tellers):
                    logger.warning("site=%s told false shares in round %d", name, number)
                _say_whose_group_is_small(results, server, sums)
                return sums
            is_first = server.stage is Stage.ADVERTISE and not about.measures
            if is_first and not stages.refused_by_masking:
                _say_who_did_not_train(results, why)
            if server.stage is not Stage.SHARE or context.attempt + 1 >= MOST_ATTEMPTS:
                results.lose(f"no sum: {why} Nothing of any site was revealed.")
                return ()
            context = replace(context, attempt=context.attempt + 1)
            logger.warning("round %d is tried again: %s", number, why)
            self._note_attempt(number, context.attempt, about.measures)

    def _decoded(
        self,
        sums: Sequence[GroupSum],
        layout: VectorLayout,
        sent: Model,
        run: str,
        results: RoundResults,
    ) -> tuple[MaskedSum, ...]:
        """Return what each sum says; a group that has trained on nothing is left out.

        Raises:
            RunError: Nobody has trained on anything.
        """
        found, why = [], ""
        for number, one in enumerate(sums, 1):
            try:
                said = decode_sum(one.words, layout, sent, run, results.number, len(one.sites))
            except RunError as error:
                why = str(error)
                continue
            _say_what_cannot_be_true(results, said.counted)
            found.append(of_group(said, number) if self._plan.groups > 1 else said)
        if not found:
            raise RunError(why)
        return tuple(found)

    def end(self, nodes: Sequence[Node], progress: Progress, exchange: Exchange) -> None:
        """Tell the sites that the run is over, so that they erase the secrets of its last round.

        Who does not hear it erases them a day later.
        """
        asked = StageAsked(progress.digest, progress.run, progress.round, 0, END, b"")
        for reply in exchange.ask(
            nodes, MASKING, lambda: pack_asked(asked), "end", _FAREWELL_SECONDS
        ):
            if reply.content is None:
                logger.info("site=%s did not hear the end of its masks", reply.node.site)

    def _attempt_of(self, number: int, measures: bool) -> int:
        """Return the attempt that a round was at when this process, or one before it, died."""
        place = self._place_of_attempt(measures)
        try:
            said = json.loads(place.read_bytes())
            return int(said["attempt"]) if said["round"] == number else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, KeyError) as error:
            msg = f"{place} cannot be read ({type(error).__name__}): remove it."
            raise RunError(msg) from None

    def _note_attempt(self, number: int, attempt: int, measures: bool) -> None:
        """Write down an attempt before anybody is asked for it."""
        said = json.dumps({"round": number, "attempt": attempt})
        replace_file(self._place_of_attempt(measures), said)

    def _place_of_attempt(self, measures: bool) -> Path:
        return self._folder / (MEASURED_ATTEMPT_FILE if measures else ATTEMPT_FILE)


def _say_whose_group_is_small(
    results: RoundResults, server: ServerRound, sums: Sequence[GroupSum]
) -> None:
    """Note whose masked update counts for nothing since too few of its group were left."""
    summed = {name for one in sums for name in one.sites}
    for name in server.survivors:
        if name not in summed:
            results.refuse(name, "too few of its group were left: nothing was told of their sum.")


def _say_what_cannot_be_true(results: RoundResults, counted: Counted) -> None:
    """Note that what a sum's sites measured together does not count, though their mean does."""
    if counted.refused:
        why = f"what was measured does not count: {counted.refused}"
        results.refusals.append(RefusalRecord(LOST, why, "validation"))


def _say_who_did_not_train(results: RoundResults, why: str) -> None:
    """End the run, as a run without masks ends where too few answer.

    Raises:
        RunError: Always.
    """
    said = " ".join(filter(None, (why, results.reasons()))).rstrip(".")
    msg = (
        f"too few sites trained in round {results.number} ({said}). Put right what these reasons "
        "say, and resume the run; a study with fewer sites needs fewer federation.masks.groups."
    )
    raise RunError(msg)
