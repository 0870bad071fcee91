"""The one bit a period that the monitoring of a site may say: an alarm was raised in it, or none.

By default nothing is said. Where the policy allows it, the word of the last period that was looked
at goes with what the site says of itself before a study. It is drawn **once a period**, written
down before it leaves, and the same whoever asks, however often, in whatever study: asking again
tells nothing more. With ``monitoring = "noised"`` it is a randomised response (Warner, JASA 60,
1965): true with probability e^epsilon / (1 + e^epsilon), whatever the images were, so that one word
is epsilon-differentially private for all images of the period and the reference together; the sum
of what was spent has a cap of its own. A study that protects its patients is told no other.
"""

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wardround.client.policy.policy import Policy
from wardround.common.errors import PolicyError
from wardround.common.files.atomic import flush_folder, replace_file
from wardround.common.files.json_lines import append_after_torn, read_json_lines
from wardround.common.files.lock import held_alone

FOLDER, LAST_LOOK, TOLD = "monitoring", "last-look.json", "told.jsonl"


@dataclass(frozen=True, slots=True)
class Told:
    """A word that was decided for a period, for good.

    Attributes:
        word: One of :data:`wardround.common.messages.replies.MONITORING_WORDS`.
        epsilon: What it spent; 0 of an exact one.
    """

    period: str
    word: str
    epsilon: float = 0.0


def note_look(folder: Path, period: str, is_alarm: bool) -> None:
    """Write down what the last look at a period found, for :func:`word_of_period`.

    Args:
        folder: Of the site's monitoring.
    """
    content = json.dumps({"period": period, "alarm": is_alarm})
    replace_file(folder / LAST_LOOK, content + "\n")


def told_words(state_folder: Path) -> list[Told]:
    """Return every word that was decided, in order.

    Raises:
        PolicyError: They cannot be read: then no more is said.
    """
    try:
        lines = read_json_lines(state_folder / FOLDER / TOLD)
        return [Told(str(o["period"]), str(o["word"]), float(o["epsilon"])) for o in lines]
    except (OSError, ValueError, KeyError, TypeError):
        raise _unusable(state_folder) from None


def word_of_period(state_folder: Path, policy: Policy, private: bool) -> tuple[str, bool]:
    """Return what may be said of the last period, "" for nothing, and whether it was decided now.

    Args:
        private: Whether the study that asks protects its patients.

    Raises:
        PolicyError: It cannot be written down, so it is not said.
    """
    folder = state_folder / FOLDER
    if policy.monitoring == "no" or not (folder / LAST_LOOK).exists():
        return "", False
    try:
        with held_alone(folder):
            last = json.loads((folder / LAST_LOOK).read_bytes())
            period, is_alarm = str(last["period"]), last["alarm"] is True
            told = told_words(state_folder)
            known = next((one for one in told if one.period == period), None)
            if known is not None:
                return _sayable(known, policy, private), False
            # An older one is of another reference: its word could be another one of the same days.
            if told and period < max(one.period for one in told):
                return "", False
            new = draw_word(period, is_alarm, policy, told)
            if new is None or not _sayable(new, policy, private):
                return "", False
            append_after_torn(folder / TOLD, json.dumps(asdict(new)).encode() + b"\n")
            flush_folder(folder)
            return new.word, True
    except (OSError, ValueError, KeyError, TypeError):
        raise _unusable(state_folder) from None


def _sayable(told: Told, policy: Policy, private: bool) -> str:
    """Return a word that was decided, if it may be said to this study under the policy of now."""
    is_exact = not told.epsilon
    return "" if is_exact and (private or policy.monitoring == "noised") else told.word


def draw_word(period: str, is_alarm: bool, policy: Policy, told: Sequence[Told]) -> Told | None:
    """Return a new word of a period, noised or not; None where the cap is reached."""
    if policy.monitoring == "exact":
        return Told(period, "alarm" if is_alarm else "quiet")
    epsilon = policy.monitoring_epsilon
    spent = math.fsum(one.epsilon for one in told)
    if spent + epsilon > policy.largest_monitoring_epsilon * (1 + 1e-9):
        return None
    is_true = secrets.SystemRandom().random() < 1 / (1 + math.exp(-epsilon))
    return Told(period, "noised alarm" if is_alarm == is_true else "noised quiet", epsilon)


def _unusable(state_folder: Path) -> PolicyError:
    return PolicyError(
        f"{state_folder / FOLDER / TOLD} or {LAST_LOOK} beside it cannot be used, so the "
        "monitoring says nothing: restore them from a backup, or make room on the disk."
    )
