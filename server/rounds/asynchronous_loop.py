"""Asynchronous rounds: the model moves on after K updates, whoever sent them (FedBuff).

Nguyen et al. 2022, algorithm 1: nobody waits for the slowest site. An update that started from an
older model counts less, by 1 / sqrt(1 + staleness) (section 5). A site contributes to a model at
most once, so that a fast one does not outvote the others. What arrives when depends on the sites'
speed, so two runs differ; within a run every update counts once.
"""

import math
import time
from dataclasses import dataclass, replace

from flwr.app import Message

from wardround.common.errors import RunError
from wardround.common.flower.error_codes import is_transient
from wardround.common.flower.messages.content import array_bytes
from wardround.common.messages.instructions import TRAIN, Instruction, pack_instruction
from wardround.common.messages.refusals import in_words
from wardround.common.messages.replies import unpack_refusal, unpack_update
from wardround.common.parameters.schema import Model, Parameters
from wardround.server.checkpoints.history import RoundRecord
from wardround.server.checkpoints.store import Commit, Progress
from wardround.server.rounds.evaluation import as_measurements
from wardround.server.rounds.loop import RoundLoop
from wardround.server.rounds.updates import RoundResults, UpdateChecks
from wardround.server.sites.exchange import IDLE_SECONDS, NO_ANSWER, NOT_CONNECTED, Node
from wardround.server.sites.intake import RefusedReplyError, taking_in


@dataclass(frozen=True, slots=True)
class _Underway:
    """An instruction that is not answered yet, and what its reply will be held against."""

    node: Node
    update_checks: UpdateChecks
    bytes_down: int


class BufferedLoop(RoundLoop):
    """The round loop, where a round is a buffer of updates and not a set of sites."""

    def _begin(self) -> Progress:
        self._underway: dict[str, _Underway] = {}
        return super()._begin()

    def _round(self, before: Progress) -> Progress:
        started = time.perf_counter()
        number = before.round + 1
        results = RoundResults(number)
        self._assemble(results)
        # In memory of its own: a late reply needs it when its file is gone.
        commit = Commit(before, dict(self._store.model(before.round)))
        self._strategy.begin(number, commit.parameters)
        self._dispatch(commit, number)
        there = max(len(self._nodes), self._quorum)
        wanted = min(self._study.federation.buffer_size or 1, there)
        deadline = self._deadlines.deadline_seconds
        until = math.inf if deadline is None else time.monotonic() + deadline
        while len(results.sites) < wanted:
            if not self._underway or time.monotonic() >= until:
                self._require_full(results, wanted)
            self._collect(results, commit)
        record = RoundRecord(
            round=number,
            measured_round=number - 1,
            seconds=time.perf_counter() - started,
            sites=tuple(results.sites),
            refusals=tuple(results.refusals),
            measurements=as_measurements(results.sums, "validation", self._study),
        )
        return self._commit(results.onto(before), self._strategy.finish(), record)

    def _require_full(self, results: RoundResults, wanted: int) -> None:
        """Say why the model does not move on."""
        refused = [f"{one.site}: {one.reason}" for one in results.refusals]
        silent = [f"{one.node.site}: {NO_ANSWER}" for one in self._underway.values()]
        msg = (
            f"model {results.number} has {len(results.sites)} of {wanted} updates "
            f"({'; '.join([*refused, *silent])})."
        )
        raise RunError(msg)

    def _dispatch(self, commit: Commit, number: int) -> None:
        """Send the newest model to every site that has nothing to do."""
        busy = {instruction.node.node_id for instruction in self._underway.values()}
        idle = [node for node in self._nodes if node.node_id not in busy]
        instruction = Instruction(
            commit.progress.digest,
            commit.progress.run,
            number,
            commit.parameters,
            auxiliary=self._strategy.auxiliary(),
            kept_round=commit.progress.best_round,
        )
        content = pack_instruction(instruction)
        size, progress = array_bytes(content), commit.progress
        told = self._asking.told_apart(progress)
        update_checks = UpdateChecks(
            self._study, progress.run, number, commit.parameters, progress.usual_norm
        )
        if self._lineage is not None:
            self._lineage.send(commit.parameters)
        messages = [
            self._grid.create_message(told(content, node), TRAIN, node.node_id, f"model {number}")
            for node in idle
        ]
        for node, message_id in zip(idle, self._grid.push_messages(messages), strict=True):
            self._underway[message_id] = _Underway(node, update_checks, size)

    def _collect(self, results: RoundResults, commit: Commit) -> None:
        """Take in what has been answered; more than the buffer holds waits for the next model."""
        replies = list(self._grid.pull_messages(list(self._underway)))
        for reply in replies:
            instruction = self._underway.pop(reply.metadata.reply_to_message_id)
            if reply.has_error() and is_transient(reply.error.code):
                self._participation.miss(instruction.node.site, results.number, is_stuck=False)
                results.refuse(instruction.node.site, NOT_CONNECTED)
                continue
            try:
                self._take(results, commit, instruction, reply)
            except RefusedReplyError as error:
                results.refuse(instruction.node.site, str(error))
        if not replies:
            time.sleep(IDLE_SECONDS)

    def _take(
        self, results: RoundResults, commit: Commit, instruction: _Underway, reply: Message
    ) -> None:
        site = instruction.node.site
        staleness = results.number - instruction.update_checks.round
        with taking_in(site):
            if reply.has_error():
                raise RunError(reply.error.reason or "the site failed")
            refusal = unpack_refusal(reply.content)
            if refusal is not None:
                raise RunError(refusal.reason or in_words(refusal.code))
            signed = self._asking.signed(site, reply.content)
            update = unpack_update(reply.content, self._study)
            self._asking.note(results, site, update)
            model, norm = instruction.update_checks.admit(update)
            moved = _moved(model, instruction.update_checks.sent, commit, staleness)
        self._asking.combine(site, replace(update, parameters=moved), signed)
        results.count(site, update, norm, instruction.bytes_down)
        if update.metrics is not None and staleness == 0:
            results.sums[site] = update.metrics


def _moved(model: Parameters, sent: Model, commit: Commit, staleness: int) -> Parameters:
    """Return the newest model moved as the site moved an older one, less far if it was older."""
    if staleness == 0:
        return model
    share = 1 / math.sqrt(1 + staleness)
    return {
        name: (
            newest + share * (model[name] - sent[name]) if newest.is_floating_point() else newest
        )
        for name, newest in commit.parameters.items()
    }
