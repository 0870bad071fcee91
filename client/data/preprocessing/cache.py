"""The prepared examinations of one split: one stacked tensor where they fit, else one by one."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.case import Case, StoredMask
from wardround.client.data.preprocessing.disk_cache import DiskCase, PreparedFolder
from wardround.client.data.preprocessing.preprocessing import prepare_case
from wardround.client.data.preprocessing.shared_arrays import (
    ArrayNames,
    prepare_block,
    shared_arrays,
)
from wardround.client.data.reading.image import UnreadableError
from wardround.client.site.folder import Site
from wardround.common.errors import DataError
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
_BLOCK = 512  # examinations of one array file that are prepared in one sweep
_CHUNK = 64  # examinations that are read before they are put away
_THREADS = 4  # of one site; several sites may prepare at the same time


class MemoryBudget:
    """Bytes that a site's prepared images may still take in memory, over all its splits."""

    def __init__(self, byte_count: int) -> None:
        self._left = byte_count
        self._lock = threading.Lock()
        self.exhausted = byte_count <= 0

    def take(self, byte_count: int) -> bool:
        """Take memory if there is enough left; once there is not, nothing more is given."""
        with self._lock:
            if self.exhausted or byte_count > self._left:
                self.exhausted = True
                return False
            self._left -= byte_count
            return True


@dataclass(frozen=True, slots=True)
class Stack:
    """Examinations of one shape: ``(N, C, *spatial)`` float32 and ``(N, *spatial)`` labels."""

    images: Tensor
    masks: Tensor | None


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """What is kept of one split.

    Attributes:
        examinations: Those that could be used.
        spacings: Millimetres a voxel of each; empty where ``cases`` know it.
        stored: The masks as they were stored, as in :class:`Case`; empty where ``cases`` know them.
        boxes: Of each; empty where ``cases`` know them.
        stack: All of them, if they are in memory and have one shape.
        cases: Each of them otherwise.
        notes: What was left out, by row.
    """

    examinations: tuple[Examination, ...]
    stack: Stack | None
    cases: tuple[Case | DiskCase, ...]
    spacings: tuple[tuple[float, ...], ...]
    stored: tuple[StoredMask | None, ...]
    notes: tuple[str, ...]
    boxes: tuple[Tensor | None, ...] = ()

    def case(self, index: int) -> Case:
        """Return one examination."""
        if self.stack is None:
            case = self.cases[index]
            return case.load() if isinstance(case, DiskCase) else case
        masks = self.stack.masks
        mask = None if masks is None else masks[index]
        return Case(
            self.stack.images[index],
            mask,
            self.spacings[index],
            stored=self.stored[index],
            boxes=self.boxes[index] if self.boxes else None,
        )

    def spacing(self, index: int) -> tuple[float, ...]:
        """Return the millimetres a voxel of one examination, without reading its image."""
        return self.spacings[index] if self.spacings else self.cases[index].spacing

    def stored_mask(self, index: int) -> StoredMask | None:
        """Return the mask of one examination as it was stored, if its grid is another."""
        return self.stored[index] if self.stored else self.cases[index].stored

    def boxes_of(self, index: int) -> Tensor | None:
        """Return the boxes ``(M, 1 + 2 dims)`` of an examination, without reading its image."""
        return self.boxes[index] if self.boxes else self.cases[index].boxes


def prepare_split(
    examinations: Sequence[Examination],
    site: Site,
    study: Study,
    budget: MemoryBudget,
    folder: PreparedFolder,
    is_scored: bool = True,
) -> PreparedSplit:
    """Read and prepare examinations, and keep them in memory or on disk.

    Args:
        is_scored: Whether predictions are compared with the masks; where not, masks as they were
            stored take no memory.

    Raises:
        DataError: An examination cannot be used, and ``skip_unreadable`` is not set; or none can.
    """
    preparer = _Preparer(site, study, budget, folder, is_scored)
    kept: list[Examination] = []
    cases: list[Case | DiskCase] = []
    for examination, case in zip(examinations, preparer.run(examinations), strict=True):
        if case is not None:
            kept.append(examination)
            cases.append(case)
    if site.is_tolerant and preparer.skipped:
        logger.warning("left out: %s", "; ".join(preparer.notes))
    if examinations and not kept and not site.is_tolerant:
        msg = (
            f"none of the {len(examinations)} examinations of a split could be read: "
            "mend the files, or unset skip_unreadable to see why."
        )
        raise DataError(msg)
    boxes = () if study.task.column != "boxes" else tuple(case.boxes for case in cases)
    stack, spacings, stored = _stacked(cases)
    return PreparedSplit(tuple(kept), stack, tuple(cases), spacings, stored, preparer.notes, boxes)


@dataclass(slots=True)
class _Preparer:
    """Prepares examinations in order; an unreadable one is None, if that is allowed."""

    site: Site
    study: Study
    budget: MemoryBudget
    folder: PreparedFolder
    is_scored: bool
    skipped: list[int] = field(default_factory=list)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"row {row} could not be read and was skipped" for row in sorted(self.skipped))

    def run(self, examinations: Sequence[Examination]) -> list[Case | DiskCase | None]:
        results: list[Case | DiskCase | None] = [None] * len(examinations)
        groups: dict[ArrayNames | None, list[int]] = {}
        for place, examination in enumerate(examinations):
            arrays = shared_arrays(examination, self.study.data)
            groups.setdefault(arrays, []).append(place)
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            for arrays, places in groups.items():
                for some in _batched(places, _CHUNK if arrays is None else _BLOCK):
                    chunk = [examinations[place] for place in some]
                    prepared = (
                        threads.map(self._one, chunk) if arrays is None else self._block(chunk)
                    )
                    for place, case in zip(some, prepared, strict=True):
                        results[place] = case
        return results

    def _block(self, examinations: Sequence[Examination]) -> list[Case | DiskCase | None]:
        if self._on_disk_first:
            return [self._one(examination) for examination in examinations]
        try:
            cases = prepare_block(examinations, self.site, self.study)
        except UnreadableError:
            return [self._one(examination) for examination in examinations]  # names the row
        return [self._put(e, case) for e, case in zip(examinations, cases, strict=True)]

    def _one(self, examination: Examination) -> Case | DiskCase | None:
        if self._on_disk_first:
            found = self.folder.find(self.folder.key(examination))
            if found is not None:
                return found
        try:
            case = prepare_case(examination, self.site, self.study)
        except DataError:
            if not self.site.skips_unreadable:
                raise
            self.skipped.append(examination.row)
            return None
        return self._put(examination, case)

    @property
    def _on_disk_first(self) -> bool:
        return self.site.settings.cache_place == "disk" or self.budget.exhausted

    def _put(self, examination: Examination, case: Case) -> Case | DiskCase:
        in_memory = self.site.settings.cache_place == "memory"
        kept = case if self.is_scored else replace(case, stored=None)
        if in_memory and self.budget.take(kept.byte_count):
            return kept
        return self.folder.save(self.folder.key(examination), case)


def _batched(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _stacked(
    cases: list[Case | DiskCase],
) -> tuple[Stack | None, tuple[tuple[float, ...], ...], tuple[StoredMask | None, ...]]:
    """Return the cases as one tensor and empty the list; or None, leaving it as it is."""
    in_memory = [case for case in cases if isinstance(case, Case)]
    if not in_memory or len(in_memory) < len(cases):
        return None, (), ()
    if len({case.image.shape for case in in_memory}) > 1:
        return None, (), ()
    stored = tuple(case.stored for case in in_memory)
    spacings = tuple(case.spacing for case in in_memory)
    masks = [case.mask for case in in_memory if case.mask is not None]
    stacked_masks = torch.stack(masks) if masks else None
    images = torch.empty((len(in_memory), *in_memory[0].image.shape))
    cases.clear()
    in_memory.reverse()
    for place in range(len(images)):  # each is given back at once: memory is not taken twice
        images[place] = in_memory.pop().image
    return Stack(images, stacked_masks), spacings, stored
