"""What a site's daemon is at, and what troubled it, in words."""

from wardround.client.daemon.status import Trouble, Work

_SHOWN = 16  # of a digest: as many as a decision takes


def work_words(work: Work | None) -> str:
    """Return what the daemon is or was at."""
    if work is None:
        return "nothing"
    study = f" of {work.study} ({work.digest[:_SHOWN]})" if work.study else ""
    return f"{work.kind}, {work.group}{study}, since {work.since}"


def trouble_words(trouble: Trouble) -> str:
    """Return what went wrong, with its remedy where one is known."""
    from wardround.common.flower.supernode.fleet_client import FLEET_CODES
    from wardround.common.messages.refusals import REFUSAL_WORDS

    times = f" ({trouble.count} times)" if trouble.count > 1 else ""
    known = FLEET_CODES if trouble.what == "connection" else REFUSAL_WORDS
    sentence = known.get(trouble.code, "")
    words = f"{trouble.what}: {trouble.code}{times}"
    return f"{words}{': ' if sentence else ''}{sentence}"
