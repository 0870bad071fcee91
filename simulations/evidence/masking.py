"""Does a model withstand attacks, or does it only hide its gradient from them?

The signs of a hidden gradient (Athalye, Carlini and Wagner 2018, arXiv 1802.00420, section 3.1;
Carlini et al. 2019, arXiv 1902.06705): one step does more than many, an attack with another model's
gradient does more than one with its own, and more starts find nothing new but do worse.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.stress import CLEAN, AttackRow

SLACK = 0.01  # of the measure: what a few images that fall the other way may do


@dataclass(frozen=True, slots=True)
class AttackedModel:
    """What is left of one model, on all patients that were tested, by one measure.

    Attributes:
        site: Whose patients.
        clean: Of the images as they are.
        rows: Every other row.
    """

    model: str
    site: str
    measure: str
    clean: AttackRow
    rows: tuple[AttackRow, ...]

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Those that were tried, in order."""
        return tuple(sorted({row.epsilon for row in self.rows}))

    def strongest(self, attack: str, epsilon: float) -> AttackRow | None:
        """Return the row of an attack with the most restarts."""
        found = [row for row in self.rows if (row.attack, row.epsilon) == (attack, epsilon)]
        return max(found, key=lambda row: row.restarts) if found else None


def attacked_model(rows: Sequence[AttackRow], model: str) -> AttackedModel | None:
    """Return what is left of a model by the first measure; None where it was not attacked."""
    own = [row for row in rows if row.model == model]
    if not own:
        return None
    sites = {row.site for row in own}
    site, measure = ALL_SITES if ALL_SITES in sites else own[0].site, own[0].measure
    chosen = [row for row in own if (row.site, row.measure) == (site, measure)]
    clean = [row for row in chosen if row.attack == CLEAN]
    if not clean or len(chosen) == len(clean):
        return None
    others = tuple(row for row in chosen if row.attack != CLEAN)
    return AttackedModel(model, site, measure, clean[0], others)


def signs_of_masking(found: AttackedModel) -> tuple[str, ...]:
    """Return a sentence for each sign that a gradient is hidden; none where it looks honest."""
    return tuple(sentence for epsilon in found.epsilons for sentence in _signs(found, epsilon))


def _signs(found: AttackedModel, epsilon: float) -> Iterator[str]:
    many, one = found.strongest("pgd", epsilon), found.strongest("fgsm", epsilon)
    if many is None:
        return
    at = f"at {epsilon:g} of 255"
    if one is not None and many.value > one.value + SLACK:
        yield f"{at} many small steps leave {many.value:.3f} and one large step {one.value:.3f}"
    firsts = [r for r in found.rows if (r.attack, r.epsilon, r.restarts) == ("pgd", epsilon, 1)]
    if firsts and many.value > firsts[0].value + SLACK:
        yield f"{at} {many.restarts} starts leave {many.value:.3f} and one {firsts[0].value:.3f}"
    other = found.strongest("transfer", epsilon)
    if other is not None and other.value < many.value - SLACK:
        yield (
            f"{at} images made against another model leave {other.value:.3f}, and those made "
            f"against this one {many.value:.3f}"
        )
