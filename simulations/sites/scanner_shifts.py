"""What makes simulated hospitals differ: which site has which scanner."""

from collections.abc import Sequence

import numpy as np

from wardround.client.site.folder import Scanner
from wardround.common.errors import InputError, known_names
from wardround.common.study.sections.simulation import Shift


def assign_shifts(
    shifts: Sequence[Shift], sites: Sequence[str], seed: int, wave: int | None = None
) -> dict[str, tuple[Shift, ...]]:
    """Return the shifts of each site, in the study's order.

    A shift that names sites is theirs, at its strength. One that names none is everybody's, with
    strengths spread evenly up to its own: of S sites one has 1/S of it, one 2/S, ... and one all,
    in an order drawn for each shift, so that sites differ for certain even when they are few.

    Args:
        shifts: ``[[simulation.shift]]``.
        sites: Every site's name.
        seed: Makes the draw repeatable.
        wave: Of the data; what is of other waves is left out. None where no shift is of one.

    Raises:
        InputError: A shift names a site that does not exist.
    """
    assigned: dict[str, list[Shift]] = {site: [] for site in sites}
    for number, shift in enumerate(shifts):
        for name in shift.sites:
            if name not in assigned:
                raise InputError(known_names("site in simulation.shift", name, sites))
        if shift.waves and wave not in shift.waves:
            continue
        ranks = np.random.default_rng([seed, number]).permutation(len(sites)) + 1
        for site, rank in zip(sites, ranks.tolist(), strict=True):
            if site in shift.sites:
                assigned[site].append(shift.model_copy(update={"sites": (), "waves": ()}))
            elif not shift.sites:
                strength = shift.strength * rank / len(sites)
                assigned[site].append(Shift(kind=shift.kind, strength=strength))
    return {site: tuple(own) for site, own in assigned.items()}


def assign_scanners(
    shifts: Sequence[Shift], sites: Sequence[str], seed: int, wave: int | None = None
) -> dict[str, Scanner]:
    """Return the scanner of each site: its shifts, and a seed of its own.

    Args:
        wave: As for :func:`assign_shifts`.

    Raises:
        InputError: As for :func:`assign_shifts`.
    """
    assigned = assign_shifts(shifts, sites, seed, wave)
    drawn = np.random.default_rng([seed, len(shifts)]).integers(2**31, size=len(sites))
    return {
        site: Scanner(shift=assigned[site], seed=number)
        for site, number in zip(sites, drawn.tolist(), strict=True)
    }
