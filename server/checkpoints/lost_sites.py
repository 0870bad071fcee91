"""Which sites a run went without: said in its first line, wherever a run is spoken of."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

TRAINING = "training"
ALL_SITES = "all sites"  # whom a round without a sum was lost to
_MOST_NAMED = 6  # in one line; the tables have them all


def lost_words(without: Sequence[str], missed: Mapping[str, int], rounds: int) -> str:
    """Return who is missing from what was done; nothing where nobody is.

    Args:
        without: Who took part in no round.
        missed: In how many rounds each of the others was asked, or meant, to train and did not.
        rounds: That were done.
    """
    parts = [f"without {_listed(without)}"] if without else []
    lost = missed.get(ALL_SITES, 0)
    if lost:
        parts.append(f"with {lost} of {rounds} rounds lost (no sum)")
    some = [
        f"{site} ({count})"
        for site, count in sorted(missed.items())
        if site not in without and site != ALL_SITES
    ]
    if some:
        parts.append(f"with rounds of {rounds} missed by {_listed(some)}")
    return " and ".join(parts)


def missed_rounds(rounds: Iterable[Iterable[tuple[str, str]]]) -> dict[str, int]:
    """Return in how many rounds each site did not train.

    Args:
        rounds: Of each the refusals: a site, and what it was asked for.
    """
    counted = Counter(
        site for told in rounds for site in {site for site, asked in told if asked == TRAINING}
    )
    return dict(sorted(counted.items()))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
