"""How far a run's model falls behind its parent at each site, from what the server was told."""

import math
from collections.abc import Iterable, Iterator

from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.checkpoints.promotions import ALL_SITES, SiteFall, margin_of
from wardround.server.operators.messages import RunRecord

_OVER_START = "less the model that training started from"  # as server/rounds/evidence says it
_OTHER_MEAN = "mean of sites"


def falls_at_server(record: RunRecord, study: Study, kept_round: int) -> tuple[SiteFall, ...]:
    """Return each site's fall, and that of all together, as far as policies told of them.

    Where the study asks for the pack "gains" and that tells the study's metric, it is of test
    patients, each held against himself. Else it is of validation patients: the first round measures
    the parent's model. The pack "intervals" then tells how sure one value is on the site's test
    patients; a difference of two values is taken to be as sure as if they were of other patients.

    Args:
        kept_round: After which the run's model was made.
    """
    paired = {one.site: one for one in _paired(record.details.evidence, study)}
    measured = _measured(record, study, kept_round)
    return tuple(
        paired.get(one.site, one) for one in sorted(measured, key=lambda one: _is_all(one.site))
    )


def _is_all(site: str) -> bool:
    return site == ALL_SITES


def _measured(record: RunRecord, study: Study, kept_round: int) -> Iterator[SiteFall]:
    known = {
        (one.site, one.round): one.value
        for one in record.values
        if one.split == "validation" and one.site != _OTHER_MEAN and one.value is not None
    }
    better = METRICS[study.metric].higher_is_better
    for site in sorted({site for site, _ in known}):
        before, now = known.get((site, 0)), known.get((site, kept_round))
        if before is None or now is None:
            continue
        reach = _reach(record.details.evidence, study, site)
        fall = before - now if better else now - before
        margin = margin_of(study, site)
        yield SiteFall(site, 0, before, now, fall, margin, "validation", reach)


def _reach(rows: Iterable[EvidenceRow], study: Study, site: str) -> float | None:
    """Return half of the interval of a difference of two values that are as sure as a site's."""
    halves = [
        (one.high - one.low) / 2
        for one in rows
        if (one.pack, one.site, one.metric) == ("intervals", site, study.metric)
        and one.low is not None
        and one.high is not None
    ]
    return math.sqrt(2) * max(halves) if halves else None


def _paired(rows: Iterable[EvidenceRow], study: Study) -> Iterator[SiteFall]:
    """Yield the falls that the pack "gains" tells; it says a difference and neither value."""
    rows = tuple(rows)
    better = METRICS[study.metric].higher_is_better
    now = {
        one.site: one.value
        for one in rows
        if (one.pack, one.metric, one.subject) == ("intervals", study.metric, "")
    }
    for one in rows:
        about = (one.pack, one.metric, one.subject)
        if about != ("gains", f"difference of {study.metric}", _OVER_START):
            continue
        if one.value is None or one.low is None or one.high is None:
            continue
        value = now.get(one.site)
        after = math.nan if value is None else value
        yield SiteFall(
            site=one.site,
            wave=0,
            before=after - one.value,
            now=after,
            fall=-one.value if better else one.value,
            margin=margin_of(study, one.site),
            split="test",
            reach=(one.high - one.low) / 2,
            patients=one.patients,
        )
