"""Why a message of secure aggregation is refused: one word each, for the audit log."""

from enum import StrEnum
from typing import NoReturn

from wardround.common.errors import WardroundError


class Refusal(StrEnum):
    """What was tried, or what went wrong; nothing of it depends on a patient."""

    MALFORMED = "malformed"
    UNKNOWN_SITE = "unknown-site"
    FALSE_SIGNATURE = "false-signature"
    SWAPPED_KEY = "swapped-key"
    REPEATED_KEY = "repeated-key"
    OTHER_STUDY = "other-study"
    OTHER_RUN = "other-run"
    REPLAYED_ROUND = "replayed-round"
    OTHER_ROUND = "other-round"
    OLD_ATTEMPT = "old-attempt"
    OTHER_ATTEMPT = "other-attempt"
    CHANGED_CONFIGURATION = "changed-configuration"
    TWO_MODELS = "two-models"
    SMALL_ROSTER = "small-roster"
    LARGE_ROSTER = "large-roster"
    LOW_THRESHOLD = "low-threshold"
    OTHER_ROSTER = "other-roster"
    TOO_FEW_SENDERS = "too-few-senders"
    FALSE_SHARE = "false-share"
    FALSE_COIN = "false-coin"
    TOO_MANY_DRAWS = "too-many-draws"
    SMALL_GROUP = "small-group"
    OTHER_UPDATE = "other-update"
    MASKED_BEFORE = "masked-before"
    SAME_UPDATE = "same-update"
    TOO_FEW_SURVIVORS = "too-few-survivors"
    FALSE_SURVIVOR = "false-survivor"
    SECOND_SURVIVORS = "second-survivors"
    BOTH_SHARES = "both-shares"
    TOO_FEW_AGREE = "too-few-agree"
    OUT_OF_TURN = "out-of-turn"
    OUT_OF_RANGE = "out-of-range"


class MaskingError(WardroundError):
    """A message that is not answered.

    Attributes:
        refusal: Which of the reasons it is.
    """

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


def refuse(refusal: Refusal, fact: str) -> NoReturn:
    """Refuse a message.

    Raises:
        MaskingError: Always.
    """
    msg = f"secure aggregation: {fact} ({refusal.value})."
    raise MaskingError(refusal, msg)
