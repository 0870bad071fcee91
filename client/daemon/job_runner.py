"""What a site's worker does with a message: from a file to a file, and never an exception.

Whatever goes wrong with a message, the reply is a refusal that has passed the site's gateway.
"""

import logging
import sys
from contextlib import suppress
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from wardround.client.app import app, refuse, reply_again
from wardround.client.daemon.jobs import Done, Job
from wardround.client.policy.approvals import note_pending
from wardround.client.policy.policy import open_policy
from wardround.common.errors import ModelError, PolicyError, RunError, WardroundError
from wardround.common.flower.messages.envelope import without_time
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import write_message
from wardround.common.flower.messages.message_loading import read_message
from wardround.common.messages.instructions import Standing, standing_of
from wardround.common.messages.replies import unpack_refusal
from wardround.common.study.loading import study_from_json
from wardround.common.study.plans.what_leaves import what_leaves

logger = logging.getLogger(__name__)
REFUSED: dict[str, WardroundError] = {
    "size": ModelError("the message is larger than the policy's largest_message_megabytes allow."),
    "words": ModelError(
        "the message's kind or group is too long, or holds a character that a screen obeys."
    ),
    "policy": PolicyError("the site has no policy that can be read: nothing is allowed."),
    "died": RunError(
        "the worker process ended twice over this message: it may need more memory than there is."
    ),
}

# With these words a study may be one that nobody has decided on yet.
_UNDECIDED = ("approval", "policy", "budget")


def answer_job(job: Job) -> Done:
    """Answer a message.

    Raises:
        OSError: The reply cannot be written.
    """
    with MessageFile(Path(job.instruction)) as message_file:
        asked = message_file.envelope.opened()
    metadata = asked.metadata
    context = Context(
        run_id=metadata.run_id,
        node_id=metadata.dst_node_id,
        node_config={"site": job.site},
        state=RecordDict(),
        run_config={"study": job.study},
    )
    reply, standing = _reply(job, asked, context)
    write_message(Path(job.reply), without_time(reply, asked))
    refusal = unpack_refusal(reply.content)
    if refusal is None:
        is_kept = _is_repeatable(job, metadata.message_type)
        return Done("", is_kept, standing.run, standing.round, standing.counted_round)
    if refusal.code in _UNDECIDED:
        _note_pending(Path(job.site), job.study, used_up=refusal.code == "approval")
    return Done(refusal.code, is_kept=False)


def _reply(job: Job, asked: Message, context: Context) -> tuple[Message, Standing]:
    if job.refuse:
        return refuse(asked, context, REFUSED[job.refuse]), Standing()
    standing = Standing()
    try:
        if job.again:
            # It passed the guard under the policy of today, or it would not have this key.
            kept = read_message(Path(job.reply), sys.maxsize, must_match=True)
            return reply_again(asked, context, kept.content), standing
        message = read_message(Path(job.instruction), job.limit)
        standing = standing_of(message.content)
        return app(message, context), standing
    except ModelError as error:
        return refuse(asked, context, error), standing
    except Exception as error:  # Flower's, of a kind of message that nobody answers
        logger.warning("not answered: %s", type(error).__name__)
        nobody = ModelError("nobody here answers this kind of message.")
        return refuse(asked, context, nobody), standing


def _is_repeatable(job: Job, kind: str) -> bool:
    """Whether a reply is kept here: a private one has its own place, others cost nothing."""
    if kind != "train":
        return False
    leaves = what_leaves(study_from_json(job.study))
    return leaves.noise_added_by == "nobody" and not leaves.masked  # a masked round keeps its own


def _note_pending(folder: Path, text: str, used_up: bool) -> None:
    """Keep a study that waits for a decision: a first one, or another once its rounds are used."""
    with suppress(WardroundError):
        study = study_from_json(text)
        policy = open_policy(folder)
        decided = study.digest in (*policy.approved, *policy.rejected)
        if policy.approved != "any" and (used_up or not decided):
            note_pending(folder, study)
