"""What a server asks of a site, and how it travels in a Flower message.

A message holds typed records: ``instruction`` (a ConfigRecord that says which round of which study)
and ``model`` (the named arrays). It holds no code.
"""

import re
import secrets
from dataclasses import dataclass, field

import torch
from flwr.app import ConfigRecord, RecordDict

from wardround.common.errors import RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import arrays_of, configs_of
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import Model, Parameters
from wardround.common.runtime.fields import FieldError, Fields

DESCRIBE = "query.describe"
TRAIN = "train"
EVALUATE = "evaluate"

_RUN = re.compile(r"[0-9a-f]{32}")  # a site names a folder by it
_SPLIT = re.compile(r"validation|test")  # nobody else is evaluated on
MOST_ATTEMPTS = 99_999  # at a round


_WEIGHTS, _FILE = "weights", "file"
NO_LEDGER = ChainHead()


@dataclass(frozen=True, slots=True)
class SiteProgress:
    """What an instruction says to one site alone.

    Attributes:
        counted_round: The last round whose update of this site was taken in, 0 if none was. What
            the site kept after it belongs to an update that was refused or lost. -1: not said.
        ledger: The last entry of its privacy ledger that this site has reported.
    """

    counted_round: int = -1
    ledger: ChainHead = NO_LEDGER


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a message stands in its run.

    Attributes:
        run: "" where the message names none.
        round: Of the message.
        counted_round: See :class:`SiteProgress`.
    """

    run: str = ""
    round: int = 0
    counted_round: int = -1


@dataclass(frozen=True, slots=True)
class Instruction:
    """A request to train on, or to evaluate, a model.

    Attributes:
        digest: The study, which the site must have approved.
        run: The run of the study, from :func:`new_run`; two runs of one study share nothing.
        round: The round that is being trained, from 1; for an evaluation the model's own round.
        attempt: Counts the tries at this round; a site asked the same twice answers the same.
        split: Whose patients an evaluation is about.
        surfaces: Whether an evaluation computes surface distances.
        parameters: What is shared of the model; empty for a site info.
        auxiliary: What a strategy sends beside the model, e.g. a control variate.
        kept_round: The round whose model is the best so far, -1 if none: a site with a part of its
            own keeps that round's too.
        validate: Whether a site evaluates the model before it trains.
        personal: Whether an evaluation is of the site's personal model, where it has one.
        counted_round: See :class:`SiteProgress`.
        ledger: See :class:`SiteProgress`.
    """

    digest: str
    run: str
    round: int
    parameters: Parameters
    attempt: int = 0
    split: str = "validation"
    surfaces: bool = False
    auxiliary: Parameters = field(default_factory=dict)
    kept_round: int = -1
    validate: bool = True
    personal: bool = True
    counted_round: int = -1
    ledger: ChainHead = NO_LEDGER


def new_run() -> str:
    """Return the name of a new run, 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def pack_instruction(instruction: Instruction, stored: Model | None = None) -> RecordDict:
    """Return the content of the message that carries an instruction.

    Args:
        stored: A model that lies on disk and is sent instead of the instruction's own parameters,
            so that it need not be in memory twice.
    """
    content = RecordDict(
        {
            "instruction": ConfigRecord(
                {
                    "digest": instruction.digest,
                    "run": instruction.run,
                    "round": instruction.round,
                    "attempt": instruction.attempt,
                    "split": instruction.split,
                    "surfaces": instruction.surfaces,
                    "kept-round": instruction.kept_round,
                    "validate": instruction.validate,
                    "personal": instruction.personal,
                }
            ),
            "model": to_array_record(instruction.parameters if stored is None else stored),
            "progress": _pack_progress(instruction.counted_round, instruction.ledger),
        }
    )
    if instruction.auxiliary:
        content["auxiliary"] = to_array_record(instruction.auxiliary)
    return content


def addressed(content: RecordDict, site_progress: SiteProgress) -> RecordDict:
    """Return an instruction with what it says to one site alone; no array is copied."""
    own = _pack_progress(site_progress.counted_round, site_progress.ledger)
    return RecordDict({**content, "progress": own})


def unpack_instruction(content: RecordDict) -> Instruction:
    """Return the instruction in a message.

    Raises:
        RunError: The message is not an order of this version, or holds what cannot be true.
        ModelError: An array cannot be read.
    """
    try:
        header = Fields(configs_of(content).get("instruction"), "instruction")
        progress = Fields(configs_of(content).get("progress"), "progress")
        model = arrays_of(content).get("model")
        if model is None:
            msg = "model is missing"
            raise FieldError(msg)
        auxiliary = arrays_of(content).get("auxiliary")
        return Instruction(
            digest=header.text("digest"),
            run=header.match("run", _RUN, "32 hexadecimal digits"),
            round=header.whole("round"),
            attempt=header.whole("attempt", most=MOST_ATTEMPTS),
            split=header.match("split", _SPLIT, "validation or test"),
            surfaces=header.flag("surfaces"),
            parameters=from_array_record(model),
            auxiliary={} if auxiliary is None else from_array_record(auxiliary),
            kept_round=header.whole("kept-round", least=-1),
            validate=header.flag("validate"),
            personal=header.flag("personal"),
            counted_round=progress.whole("counted-round", least=-1),
            ledger=ChainHead(progress.whole("ledger-counter"), progress.text("ledger-head")),
        )
    except FieldError as error:
        msg = f"the server's instruction cannot be read ({error}): update wardround."
        raise RunError(msg) from None


def pack_weights(content: bytes) -> RecordDict:
    """Return what a question has beside it for a site that lacks the study's weights.

    Args:
        content: The safetensors file, as it is.
    """
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return RecordDict({_WEIGHTS: to_array_record({_FILE: values})})


def unpack_weights(content: RecordDict) -> bytes | None:
    """Return the file that :func:`pack_weights` packed; None where there is none.

    Raises:
        ModelError: The array cannot be read.
    """
    record = arrays_of(content).get(_WEIGHTS)
    values = None if record is None else from_array_record(record).get(_FILE)
    return None if values is None else values.numpy().tobytes()


def standing_of(content: RecordDict) -> Standing:
    """Return where an instruction stands in its run; nowhere if it does not say so."""
    configs = configs_of(content)
    try:
        header = Fields(configs.get("instruction"), "instruction")
        return Standing(
            header.match("run", _RUN, "32 hexadecimal digits"),
            header.whole("round"),
            Fields(configs.get("progress"), "progress").whole("counted-round", least=-1),
        )
    except FieldError:
        return Standing()


def _pack_progress(counted_round: int, ledger: ChainHead) -> ConfigRecord:
    return ConfigRecord(
        {
            "counted-round": counted_round,
            "ledger-counter": ledger.entries,
            "ledger-head": ledger.hash,
        }
    )
