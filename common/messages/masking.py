"""The messages of secure aggregation as they travel: a stage, and bytes that it signs or checks."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.flower.messages.content import arrays_of, configs_of
from wardround.common.messages.instructions import Instruction
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.runtime.fields import FieldError, Fields

MASKING = "query.masking"  # the stages after the first; the first is the answer to TRAIN
ADVERTISE, SHARE, MASK, AGREE, UNMASK = "advertise", "share", "mask", "agree", "unmask"
END = "end"  # of the run: the sites erase what they keep of its last round
ASKED = (SHARE, MASK, AGREE, UNMASK, END)
_RUN = re.compile(r"[0-9a-f]{32}")  # a site names a folder by it
RECORD, VECTOR = "masking", "masked"
WORDS = "words"
_UNSIGNED = {torch.int16: "<u2", torch.int32: "<u4", torch.int64: "<u8"}
_SIGNED = {2: np.int16, 4: np.int32, 8: np.int64}
_LONGEST = 2**24  # bytes of a message beside the vector


@dataclass(frozen=True, slots=True)
class StageAsked:
    """What a server asks of a site in one stage.

    Attributes:
        given: What the stage passes on of the other sites.
        measures: Whether it is of a measurement, and not of a round.
    """

    digest: str
    run: str
    round: int
    attempt: int
    stage: str
    given: bytes
    measures: bool = False


@dataclass(frozen=True, slots=True)
class StageSaid:
    """What a site answers.

    Attributes:
        signed: Its signed message of the stage.
        words: ``(d,)``, its masked vector; in the stage "mask" alone.
    """

    site: str
    stage: str
    signed: bytes
    words: Words | None = None


def pack_asked(asked: StageAsked) -> RecordDict:
    """Return the content of the message that asks for a stage."""
    return RecordDict(
        {
            RECORD: ConfigRecord(
                {
                    "digest": asked.digest,
                    "run": asked.run,
                    "round": asked.round,
                    "attempt": asked.attempt,
                    "stage": asked.stage,
                    "given": asked.given,
                    "measures": asked.measures,
                }
            )
        }
    )


def unpack_asked(content: RecordDict) -> StageAsked:
    """Return what a server asks.

    Raises:
        RunError: It is none of the stages, or cannot be read.
    """
    record = configs_of(content).get(RECORD)
    try:
        fields = Fields(record, RECORD)
        stage, given = fields.text("stage"), _bytes(record, "given")
        if stage not in ASKED:
            msg = "stage is none that a site is asked"
            raise FieldError(msg)
        return StageAsked(
            fields.text("digest"),
            fields.match("run", _RUN, "32 hexadecimal digits"),
            fields.whole("round", least=1),
            fields.whole("attempt"),
            stage,
            given,
            fields.flag("measures"),
        )
    except FieldError as error:
        msg = f"the server's question cannot be read ({error}): update wardround."
        raise RunError(msg) from None


def pack_said(said: StageSaid, about: Instruction | StageAsked) -> RecordDict:
    """Return the content of the message that carries a site's answer."""
    record = ConfigRecord(
        {
            "site": said.site,
            "digest": about.digest,
            "run": about.run,
            "round": about.round,
            "attempt": about.attempt,
            "stage": said.stage,
            "signed": said.signed,
        }
    )
    content = RecordDict({RECORD: record})
    if said.words is not None:  # the same bits, of a type that a model may hold
        words = torch.from_numpy(said.words.view(_SIGNED[said.words.itemsize]))
        content[VECTOR] = to_array_record({WORDS: words})
    return content


def unpack_said(content: RecordDict) -> StageSaid:
    """Return a site's answer.

    Raises:
        RunError: It is none.
        ModelError: The vector cannot be read.
    """
    record = configs_of(content).get(RECORD)
    try:
        fields = Fields(record, RECORD)
        site, stage = fields.text("site", least=1), fields.text("stage")
        signed = _bytes(record, "signed")
    except FieldError as error:
        msg = (
            f"the answer to a stage of secure aggregation cannot be read ({error}): server and "
            "site must run the same version of wardround."
        )
        raise RunError(msg) from None
    vector = arrays_of(content).get(VECTOR)
    if vector is None:
        return StageSaid(site, stage, signed)
    words = from_array_record(vector).get(WORDS)
    if words is None or words.dtype not in _UNSIGNED or words.dim() != 1:
        msg = "the masked vector is no list of words of 16, 32 or 64 bits."
        raise RunError(msg)
    return StageSaid(site, stage, signed, words.numpy().view(_UNSIGNED[words.dtype]))


def _bytes(record: ConfigRecord | None, key: str) -> bytes:
    value = None if record is None else record.get(key)
    if type(value) is not bytes or len(value) > _LONGEST:
        msg = f"{key} is missing, or too long"
        raise FieldError(msg)
    return value
