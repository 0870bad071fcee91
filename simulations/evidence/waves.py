"""What a sequence of studies learnt and lost, wave by wave: the numbers of continual learning.

``R[i, j]`` is the metric after wave i on the test patients of wave j, and ``b[j]`` that of a model
which nobody has trained. Of a metric of which less is better each difference has its sign turned:
positive is better throughout, but for forgetting.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.server.checkpoints.promotions import ENDLESS, SiteFall, margin_of
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.waves import DRAWN, MADE, PARENT, WaveRow


@dataclass(frozen=True, slots=True)
class Sequel:
    """A sequence of studies, by the metric over all sites or of one.

    Attributes:
        waves: That were learnt, ascending.
        after: ``R[i, j]``; also of a wave before it was learnt, where it was measured.
        drawn: ``b[j]``.
        higher_is_better: Of the metric.
    """

    metric: str
    waves: tuple[int, ...]
    after: Mapping[tuple[int, int], float]
    drawn: Mapping[int, float]
    higher_is_better: bool

    @property
    def last(self) -> int:
        """The wave that was learnt last."""
        return self.waves[-1]

    @property
    def average(self) -> float:
        """Mean of ``R[k, j]`` over all waves j, after the last wave k."""
        return _mean(self.after.get((self.last, wave)) for wave in self.waves)

    @property
    def backward_transfer(self) -> float:
        """Mean of ``R[k, j] - R[j, j]`` over the earlier waves (Lopez-Paz and Ranzato 2017, 3)."""
        return _mean(self._gain((self.last, wave), self._first(wave)) for wave in self.waves[:-1])

    @property
    def forward_transfer(self) -> float:
        """Mean of ``R[j-1, j] - b[j]`` over the later waves (Lopez-Paz and Ranzato 2017, 4)."""
        return _mean(
            self._signed(self.after.get((before, wave)), self.drawn.get(wave))
            for before, wave in self._steps()
        )

    @property
    def forgetting(self) -> float:
        """Mean of the best ``R[l, j]`` before less ``R[k, j]`` (Chaudhry et al. 2018, 3)."""
        return _mean(self._lost(wave) for wave in self.waves[:-1])

    @property
    def plasticity(self) -> float:
        """Mean of ``R[j, j] - R[j-1, j]`` over the later waves: what learning one was worth."""
        return _mean(self._gain((wave, wave), (before, wave)) for before, wave in self._steps())

    def _lost(self, wave: int) -> float | None:
        """Return how far a wave is from its best, of the models that have learnt it."""
        before = [then for then in self.waves[:-1] if then >= wave]
        lost = [self._gain((then, wave), (self.last, wave)) for then in before]
        return max((one for one in lost if one is not None), default=None)

    def _steps(self) -> Iterator[tuple[int, int]]:
        return zip(self.waves[:-1], self.waves[1:], strict=True)

    def _first(self, wave: int) -> tuple[int, int]:
        """Return where a wave was measured first, once it was learnt."""
        known = [then for then in self.waves if then >= wave and (then, wave) in self.after]
        return (known[0] if known else wave, wave)

    def _gain(self, one: tuple[int, int], other: tuple[int, int]) -> float | None:
        return self._signed(self.after.get(one), self.after.get(other))

    def _signed(self, one: float | None, other: float | None) -> float | None:
        if one is None or other is None:
            return None
        return one - other if self.higher_is_better else other - one


def sequel_of(rows: Sequence[WaveRow], site: str = ALL_SITES) -> Sequel | None:
    """Return the sequence that a run's rows tell of; None where nothing was learnt."""
    own = [row for row in rows if row.site == site]
    made = [row for row in own if row.model == MADE]
    if not made:
        return None
    waves = sorted({row.after for row in made})
    known = [wave for wave in sorted({row.wave for row in own}) if wave <= waves[-1]]
    learnt = tuple(sorted({*waves, *known}))
    after = {(row.after, row.wave): row.value for row in made}
    for row in own:
        if row.model == PARENT:
            earlier = [wave for wave in learnt if wave < row.after]
            if earlier:
                after.setdefault((earlier[-1], row.wave), row.value)
    drawn = {row.wave: row.value for row in own if row.model == DRAWN}
    better = METRICS[made[-1].metric].higher_is_better
    return Sequel(made[-1].metric, learnt, after, drawn, better)


def falls_of(rows: Sequence[WaveRow], study: Study) -> tuple[SiteFall, ...]:
    """Return how far a run's model falls behind its parent, by site and wave; all sites last."""
    own = [row for row in rows if row.study == study.digest]
    now = {(row.site, row.wave): row for row in own if row.model == MADE}
    better = METRICS[study.metric].higher_is_better
    found = []
    for row in sorted(own, key=lambda one: one.site == ALL_SITES):
        made = now.get((row.site, row.wave))
        if row.model != PARENT or made is None or not row.support:
            continue
        found.append(
            SiteFall(
                site=row.site,
                wave=row.wave,
                before=row.value,
                now=made.value,
                fall=row.value - made.value if better else made.value - row.value,
                margin=margin_of(study, row.site),
                reach=None if math.isnan(row.reach) else min(row.reach, ENDLESS),
                patients=row.patients or None,
            )
        )
    return tuple(found)


def _mean(values: "Iterator[float | None]") -> float:
    """Return the mean of what is known; NaN of nothing."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(known) if known else math.nan
