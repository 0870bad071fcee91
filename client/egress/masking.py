"""Updates that leave under a mask: checked in the clear first, kept on disk, then masked once.

A site's place in the protocol, and the words that it masks, stand in its folder before anything of
them is sent: after a crash it goes on with the same keys and the same words, or leaves the round.
Which updates were ever masked is remembered over all runs of all studies.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from wardround.client.egress.guard import Bytes, Exactly, MessageSchema, Rule
from wardround.client.policy.policy import Policy
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import KEY_FOLDER
from wardround.client.site.idle_masks import (
    KEPT,
    MASKING_FOLDER,
    MEASURING,
    STATE,
    erase_idle,
)
from wardround.client.site.masked_once import MODELS, UPDATES, masked_before, remember_masked
from wardround.common.errors import RunError
from wardround.common.files.atomic import flush_folder, make_private_folder, replace_file
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masked_vector import Counted, VectorLayout
from wardround.common.messages.masking import (
    ADVERTISE,
    AGREE,
    END,
    MASK,
    RECORD,
    SHARE,
    VECTOR,
    WORDS,
    StageAsked,
    StageSaid,
    pack_said,
)
from wardround.common.messages.replies import SiteUpdate
from wardround.common.metrics.sums import MetricSums
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import ArraySpec, Schema, schema
from wardround.common.privacy.secure_aggregation.context import Context
from wardround.common.privacy.secure_aggregation.masks import WORD_TYPES, Words
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.privacy.secure_aggregation.site import advertise, agree, mask, share, unmask
from wardround.common.privacy.secure_aggregation.site_state import Party, SiteRound
from wardround.common.security.peers import read_peers
from wardround.common.security.signing_key import open_key
from wardround.common.study.plans.masking import plan_masking

_LONGEST_MESSAGE = 2**22  # bytes of a signed message, for rosters of 1,024 sites


@dataclass(frozen=True, slots=True)
class MaskedSite:
    """One site in the masked rounds of one run, or in its measurements beside them.

    Attributes:
        measures: Whether it is about a model that is measured, and not trained from.
    """

    session: SiteSession
    policy: Policy
    run: str
    measures: bool = False

    def train(self, instruction: Instruction, train: Callable[[], SiteUpdate]) -> RecordDict:
        """Train, keep the words that will be masked, and return the keys of the round.

        A site that has trained for this very instruction before does not train again, nor for an
        earlier attempt at the same round of which nothing was masked.

        Args:
            train: Returns the update, checked in the clear; called once at most.

        Raises:
            MaskingError: The round was masked before, is over, or the update cannot be coded.
            RunError: The disk cannot be used.
        """
        layout = self._layout
        return self._begin(
            instruction, instruction.round, lambda: self._encode(layout, train(), instruction)
        )

    def measure(
        self, instruction: Instruction, measure: Callable[[], MetricSums | None]
    ) -> RecordDict:
        """Measure a model, keep the words that will be masked, and return the keys.

        Args:
            measure: Returns what the site's policy lets into a sum; called once at most.

        Raises:
            MaskingError: What is measured of this model was masked before.
            RunError: The disk cannot be used.
        """

        def words() -> Words:
            if self._is_told_before(instruction):
                refuse(Refusal.SAME_UPDATE, "what is measured of this model was masked before")
            return self._layout.encode({}, {}, Counted(1, 0, 0, 0.0, measure()))

        # Of the model of a round after it; so the first has a number too.
        return self._begin(instruction, instruction.round + 1, words)

    def _begin(
        self, instruction: Instruction, number: int, encoded: Callable[[], Words]
    ) -> RecordDict:
        context = Context(
            study=instruction.digest,
            run=instruction.run,
            round=number,
            attempt=instruction.attempt,
            configuration=self._layout.configuration.digest,
            model=bytes.fromhex(digest({**instruction.parameters, **instruction.auxiliary})),
        )
        last = self._kept()
        state = SiteRound.begin(context, last)
        party = self._party()
        if state is not last:
            if last is None or not last.is_unmasked(context):
                self._keep(KEPT[self._state_name], encoded().tobytes())
            self._keep(self._state_name, state.to_bytes())
        said = StageSaid(party.site, ADVERTISE, advertise(state, party))
        return pack_said(said, replace(instruction, round=number))

    def _is_told_before(self, instruction: Instruction) -> bool:
        """Return whether metrics of a model were masked before, and remember that they are now.

        A simulated site, whose patients are nobody's, tells them as often as it is asked to.

        Raises:
            RunError: The disk cannot be used.
        """
        if self.policy.simulated:
            return False
        before, model = self._masked_before(MODELS), bytes.fromhex(digest(instruction.parameters))
        if model in before:
            return True
        self._remember(MODELS, before, model)
        return False

    def answer(self, asked: StageAsked) -> RecordDict:
        """Return the site's message of a stage, after its state is on the disk.

        Raises:
            MaskingError: What the server asks for is refused, by name.
            RunError: The disk cannot be used.
        """
        if asked.stage == END:
            return self._end(asked)
        state, party = self._state_asked(asked), self._party()
        words: Words | None = None
        before: list[bytes] = []
        if asked.stage == SHARE:
            after, signed = share(state, party, asked.given, self._layout.configuration)
        elif asked.stage == MASK:
            # What is measured may be the same of two models: it is told once a model, see above.
            plain, before = self._words(), [] if self.measures else self._masked_before(UPDATES)
            after, signed, words = mask(state, party, asked.given, plain, before)
        elif asked.stage == AGREE:
            after, signed = agree(state, party, asked.given)
        else:
            after, signed = unmask(state, party, asked.given)
        if after != state:
            self._keep(self._state_name, after.to_bytes())
        if words is not None and not self.measures and after.update not in before:
            self._remember(UPDATES, before, after.update)
        return pack_said(StageSaid(party.site, asked.stage, signed, words), asked)

    def _state_asked(self, asked: StageAsked) -> SiteRound:
        """Return where the site stands in the round that a server asks about.

        Raises:
            MaskingError: It stands in none, or in another.
        """
        state = self._kept()
        if state is None:
            refuse(Refusal.OUT_OF_TURN, "a stage is asked for before the round was trained")
        stood = state.context.round, state.context.attempt
        if (asked.round, asked.attempt) != stood:
            late = (asked.round, asked.attempt) < stood
            name = Refusal.REPLAYED_ROUND if late else Refusal.OTHER_ROUND
            refuse(name, f"a stage of round {asked.round} is asked for, and this is {stood[0]}")
        if state.is_over:
            refuse(Refusal.REPLAYED_ROUND, "this attempt is over, and its keys are erased")
        return state

    def _end(self, asked: StageAsked) -> RecordDict:
        """Erase the secrets of the run's last round, whose model the server has; say so.

        A server that says it too early has that round without a sum, and no more.

        Raises:
            RunError: The disk cannot be used.
        """
        for measures in (False, True):
            replace(self, measures=measures)._erase(asked.round + measures)
        return pack_said(StageSaid(self.session.site.name, END, b""), asked)

    def _erase(self, number: int) -> None:
        """Erase the secrets of a round, or a measurement, that is not later than a number."""
        state = self._kept()
        if state is not None and not state.is_over and state.context.round <= number:
            self._keep(self._state_name, state.erased().to_bytes())
            try:
                (self._folder / KEPT[self._state_name]).unlink(missing_ok=True)
            except OSError as error:
                raise RunError(_unusable(error)) from None

    def schema_of(self, about: Instruction | StageAsked, stage: str) -> MessageSchema:
        """Return exactly what the answer of a stage may hold."""
        number = about.round
        if self.measures and isinstance(about, Instruction):
            number += 1
        settings: dict[str, Rule] = {
            "site": Exactly(self.session.site.name),
            "digest": Exactly(about.digest),
            "run": Exactly(about.run),
            "round": Exactly(number),
            "attempt": Exactly(about.attempt),
            "stage": Exactly(stage),
            "signed": Bytes(_LONGEST_MESSAGE),
        }
        arrays: dict[str, Schema] = {}
        if stage == MASK:
            length = self._layout.configuration.length
            word = f"int{self._layout.plan.grid.word_bits}"
            arrays[VECTOR] = (ArraySpec(WORDS, (length,), word),)
        return MessageSchema({RECORD: settings}, {}, arrays)

    @property
    def _layout(self) -> VectorLayout:
        study, context = self.session.context.study, self.session.context
        plan = plan_masking(study)
        if plan is None:
            msg = "the study masks no updates, and a stage of masking was asked for."
            raise RunError(msg)
        if self.measures:
            return VectorLayout.of_measurement(study, plan)
        whole = context.network.state_dict()
        layout = context.layout
        shared = schema({name: whole[name] for name in layout.shared})
        return VectorLayout.of(study, plan, shared, layout.trainable)

    def _party(self) -> Party:
        site = self.session.site
        key = open_key(site.folder / KEY_FOLDER, durable=not self.policy.simulated)
        return Party(site.name, key, read_peers(site.folder))

    def _encode(self, layout: VectorLayout, update: SiteUpdate, instruction: Instruction) -> Words:
        if self.session.context.study.privacy.mode != "none":
            return self._encode_privately(layout, update, instruction)
        metrics = update.metrics if self.policy.metrics == "sums" else None
        if metrics is not None and self._is_told_before(instruction):
            metrics = None  # the round before, from the same model, ended without a sum
        counted = Counted(
            layout.plan.weight(update.examinations),
            update.examinations,
            update.updates,
            update.training_loss * update.examinations,
            metrics if isinstance(metrics, MetricSums) else None,
            float(update.auxiliary.get(RECEIVED_LOSS, math.nan)),
        )
        start = instruction.parameters
        draw = self._rounding(instruction) if layout.plan.grid.word_bits == 16 else None
        return layout.encode(update.parameters, start, counted, update.auxiliary, draw=draw)

    def _rounding(self, instruction: Instruction) -> np.random.Generator:
        """Return what rounds narrow numbers: no secret, and the same where a round is repeated."""
        about = f"{instruction.digest}\n{instruction.round}\n{self.session.site.name}"
        return np.random.default_rng(list(hashlib.sha256(about.encode()).digest()))

    def _encode_privately(
        self, layout: VectorLayout, update: SiteUpdate, instruction: Instruction
    ) -> Words:
        """Return the words of an update under privacy: no count, loss or metric stands in them."""
        noised, shares = None, layout.plan.shares
        trained, start = update.parameters, instruction.parameters
        if shares is not None:
            from wardround.client.privacy.distributed import ShareAdder, clipped_change

            names = self.session.context.layout.trainable
            noised = ShareAdder(names, layout.plan.grid)
            if shares.unit == "site":
                trained = clipped_change(trained, start, names, shares.clip_norm)
        # Steps of whole passes would tell how many examinations there are.
        by_patient = self.session.context.privacy is not None
        counted = Counted(1, 1, update.updates if by_patient else 1, 0.0, None)
        return layout.encode(trained, start, counted, update.auxiliary, noised)

    def _words(self) -> Words:
        configuration = self._layout.configuration
        length, kind = configuration.length, WORD_TYPES[configuration.grid.word_bits]
        try:
            words: Words = np.frombuffer(
                (self._folder / KEPT[self._state_name]).read_bytes(), dtype=kind
            )
        except OSError as error:
            raise RunError(_unusable(error)) from None
        if len(words) != length:
            refuse(Refusal.OUT_OF_TURN, "the kept update is not whole: the site leaves the round")
        return words

    def _kept(self) -> SiteRound | None:
        try:
            return SiteRound.from_bytes((self._folder / self._state_name).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(_unusable(error)) from None

    def _masked_before(self, what: str) -> list[bytes]:
        """Return the hashes of all updates, or models measured, that this site has ever masked.

        A simulated site, whose patients are nobody's, repeats a study as often as it is asked to.
        """
        if self.policy.simulated:
            return []
        try:
            return masked_before(self.session.site.folder, what)
        except OSError as error:
            raise RunError(_unusable(error)) from None

    def _remember(self, what: str, before: list[bytes], new: bytes) -> None:
        if self.policy.simulated:
            return
        try:
            remember_masked(self.session.site.folder, what, before, new)
        except OSError as error:
            raise RunError(_unusable(error)) from None

    def _keep(self, name: str, content: bytes) -> None:
        folder, durable = self._folder, not self.policy.simulated
        try:
            if not folder.exists():
                erase_idle(self.session.site.folder)
                make_private_folder(folder)
            replace_file(folder / name, content, durable=durable)
            if durable:
                flush_folder(folder.parent)
        except OSError as error:
            raise RunError(_unusable(error)) from None

    @property
    def _state_name(self) -> str:
        return MEASURING if self.measures else STATE

    @property
    def _folder(self) -> Path:
        return self.session.site.folder / MASKING_FOLDER / self.run


def _unusable(error: OSError) -> str:
    return (
        f"the state of the masked round cannot be kept ({error.strerror}), so nothing leaves: make "
        "room on the site's disk, or make its folder writable for this account."
    )
