"""Simulated hospitals that lack an image channel or a clinical value: their cells are empty."""

from collections.abc import Sequence
from dataclasses import replace

from wardround.common.errors import InputError, known_names
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import PublicExamination


def require_known_sites(study: Study, sites: Sequence[str]) -> None:
    """Check that ``[[simulation.lacking]]`` names sites of the simulation.

    Raises:
        InputError: It names another one.
    """
    for one in study.simulation.lacking:
        for name in one.sites:
            if name not in sites:
                raise InputError(known_names("site in simulation.lacking", name, sites))


def without_lacking(
    rows: Sequence[PublicExamination], site: str, study: Study
) -> list[PublicExamination]:
    """Return a site's examinations without what ``[[simulation.lacking]]`` takes from it.

    Raises:
        InputError: An examination would be left without any image.
    """
    names = {name for one in study.simulation.lacking if site in one.sites for name in one.names}
    if not names:
        return list(rows)
    left = [
        replace(
            row,
            images={channel: at for channel, at in row.images.items() if channel not in names},
            covariates={n: "" if n in names else text for n, text in row.covariates.items()},
        )
        for row in rows
    ]
    empty = sum(
        bool(row.images) and not any(without.images.values())
        for row, without in zip(rows, left, strict=True)
    )
    if empty:
        taken = ", ".join(name for name in study.data.channels if name in names)
        msg = (
            f"simulation.lacking takes {taken} from {site}, where {empty} of {len(rows)} "
            f"examinations have no other image: take another channel, or leave {site} out of it."
        )
        raise InputError(msg)
    return left
