"""Three hospitals that mask, asked as a server asks them, honest or not."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from flwr.app import Message, RecordDict
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    context_of,
    instruction_for,
    refusal_of,
    said_by,
    write_site,
)

from wardround.client.app import app
from wardround.common.flower.site_grid import claim_identity, stamp
from wardround.common.messages.instructions import TRAIN, Instruction
from wardround.common.messages.masked_vector import VectorLayout
from wardround.common.messages.masking import (
    AGREE,
    MASK,
    MASKING,
    SHARE,
    UNMASK,
    StageAsked,
    pack_asked,
    unpack_said,
)
from wardround.common.parameters.schema import schema
from wardround.common.privacy.secure_aggregation.messages import Advertisement, read_signed
from wardround.common.privacy.secure_aggregation.server import ServerRound
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.masking import plan_masking
from wardround.simulations.experiment.federation import introduce

MASKED = with_changes(STUDY, {"federation.secure_aggregation": True, "evaluation.keep": "last"})
NAMES = ("east", "north", "west")


@dataclass
class Consortium:
    """Hospitals, three where a test says no more, and a server that goes through a round."""

    root: Path
    names: tuple[str, ...] = NAMES
    answers: dict[str, RecordDict] = field(default_factory=dict)
    given: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        approved = {"approved": f'["{MASKED.digest}"]'}
        self.folders = {name: write_site(self.root / name, 60, **approved) for name in self.names}
        self.identities = introduce(list(self.folders.values()))
        self.instruction = instruction_for(self.folders["north"], study=MASKED)

    @property
    def layout(self) -> VectorLayout:
        plan = plan_masking(MASKED)
        assert plan is not None
        return VectorLayout.of(
            MASKED,
            plan,
            schema(self.instruction.parameters),
            frozenset(self.instruction.parameters),
        )

    def train(self, name: str, instruction: Instruction | None = None) -> RecordDict:
        return ask(self.folders[name], TRAIN, instruction or self.instruction, MASKED)

    def asked(self, stage: str, given: bytes, **changes: object) -> StageAsked:
        about = self.instruction
        plain = StageAsked(about.digest, about.run, about.round, about.attempt, stage, given)
        return replace(plain, **changes)  # type: ignore[arg-type] # of any field

    def send(self, name: str, asked: StageAsked) -> RecordDict:
        claim_identity(1)
        message = Message(pack_asked(asked), 7, MASKING)
        stamp(message, "message-1")
        reply = app(message, context_of(self.folders[name], MASKED))
        assert not reply.has_error()
        return reply.content

    def go(self, until: str = "") -> "Consortium":
        """Go through the stages before one."""
        signed = {name: unpack_said(self.train(name)).signed for name in self.names}
        first = read_signed(Advertisement, signed["north"], self.identities)
        self.server = ServerRound(first.context, self.layout.configuration, self.identities)
        for one in signed.values():
            self.server.take_advertisement(one)
        roster = self.server.close_roster()
        self.given[SHARE] = dict.fromkeys(self.names, roster)
        for stage in (SHARE, MASK, AGREE, UNMASK):
            if stage == until:
                break
            for name in self.names:
                self._take(stage, self.send(name, self.asked(stage, self.given[stage][name])))
            self._close(stage)
        return self

    def _take(self, stage: str, content: RecordDict) -> None:
        said = unpack_said(content)
        if said.words is not None:
            self.server.take_masked(said.signed, said.words)
        elif stage == SHARE:
            self.server.take_shares(said.signed)
        elif stage == AGREE:
            self.server.take_agreement(said.signed)
        else:
            self.server.take_unmasking(said.signed)

    def _close(self, stage: str) -> None:
        if stage == SHARE:
            self.given[MASK] = self.server.close_shares()
        elif stage == MASK:
            self.given[AGREE] = dict.fromkeys(self.names, self.server.close_masked())
        elif stage == AGREE:
            self.given[UNMASK] = dict.fromkeys(self.names, self.server.close_agreements())

    def require_refused(self, name: str, content: RecordDict, word: str) -> None:
        """A refusal says "masking" and no more; the hospital's audit log names what was tried."""
        assert refusal_of(content) == (name, "masking", "")
        assert ("refusal", f"deny: secure aggregation, {word}") in said_by(self.folders[name])
