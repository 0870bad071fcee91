"""Your own data: a manifest, as a site has one, with an optional column ``site``."""

from collections.abc import Set as AbstractSet

from wardround.common.errors import InputError
from wardround.common.study.registry import TASKS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
)
from wardround.simulations.datasets.locations import given_path


def _load(request: DataRequest) -> Examinations:
    # Reading labels needs the tasks, and these torch: a listing of data sets does without.
    from wardround.simulations.datasets.own_manifest import read_own_manifest

    if not request.text("manifest"):
        msg = (
            "simulation.data = 'folder' needs a manifest: set simulation.options.manifest to a CSV "
            "file with a row an examination."
        )
        raise InputError(msg)
    path = given_path(request.text("manifest"), request.data_root)
    return read_own_manifest(path, request.study, ENTRY.facts("folder"))


def image_columns(study: Study, held: AbstractSet[str] = frozenset()) -> dict[str, str]:
    """Return the manifest's column of each channel, as a site reads it.

    Args:
        study: Names the channels.
        held: The columns there are; channels are also found under ``image``, in one file.
    """
    if study.data.kind == "table":
        return {}
    columns = {name: name if name == "image" else f"image.{name}" for name in study.data.channels}
    if "image" in held and held.isdisjoint(columns.values()):
        return dict.fromkeys(columns, "image")
    return columns


ENTRY = DatasetEntry(
    title="your own manifest",
    licence="yours to state",
    citation="",
    homepage="",
    modality="any that a site can read",
    task="any; sites from the column 'site', or from a split",
    tasks=tuple(TASKS),
    load=_load,
    options={"manifest": DatasetOption("", "a CSV file laid out as a site's manifest.csv.")},
)
