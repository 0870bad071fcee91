"""The patients of one site in one split, and the batches a network sees of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from wardround.client.data.augmentation.batches import accepted, augmented, hidden, with_less
from wardround.client.data.batch import Batch
from wardround.client.data.boxes import stack_boxes
from wardround.client.data.manifest.covariates import (
    Scale,
    encode_covariates,
)
from wardround.client.data.manifest.examination import Examination, SplitName
from wardround.client.data.manifest.rows import name_rows
from wardround.client.data.patches import PatchDrawer
from wardround.client.data.preprocessing.cache import MemoryBudget, PreparedSplit, prepare_split
from wardround.client.data.preprocessing.case import StoredMask
from wardround.client.data.preprocessing.disk_cache import PreparedFolder
from wardround.client.data.preprocessing.preprocessing import read_channels
from wardround.client.site.folder import Site
from wardround.client.tasks.anchors import misfit_note
from wardround.client.tasks.registry import task_of
from wardround.common.errors import DataError
from wardround.common.study.registry import anchor_sides
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)
_SAME_SIZE = "Set training.patch_size or data.size in the study, or training.batch_size = 1."
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class CohortSource:
    """What the cohorts of a site have in common."""

    site: Site
    study: Study
    scales: tuple[Scale, ...]
    budget: MemoryBudget
    prepared: PreparedFolder


class Cohort:
    """The examinations of one split; images are read when first needed, and then kept."""

    def __init__(
        self, split: SplitName, examinations: Sequence[Examination], source: CohortSource
    ) -> None:
        self.split = split
        self._listed = tuple(examinations)
        self._source = source
        self._study = source.study
        self._patches = PatchDrawer(source.study)

    @cached_property
    def _prepared(self) -> PreparedSplit:
        source = self._source
        return prepare_split(
            self._listed,
            source.site,
            self._study,
            source.budget,
            source.prepared,
            is_scored=self.split != "train",
        )

    def prepare(self) -> None:
        """Read and prepare the images now, and not when they are first needed.

        Raises:
            DataError: An examination cannot be used; says its row.
        """
        if self._has_images:
            _ = self._prepared

    def require_batches(self) -> None:
        """Check that any of the examinations can be trained on together.

        Raises:
            DataError: They differ in size, and the study asks for whole images, several a batch.
        """
        training = self._study.training
        if self._study.input_size is not None or training.batch_size == 1 or self.stacked:
            return
        sizes = [tuple(self._prepared.case(i).image.shape[1:]) for i in range(len(self))]
        others = [
            e.row for e, size in zip(self.examinations, sizes, strict=True) if size != sizes[0]
        ]
        if others:
            first = f"row {self.examinations[0].row}, {_by(sizes[0])}"
            msg = (
                f"images of different sizes cannot form one batch: {name_rows(others)} "
                f"of the manifest {'has' if len(others) == 1 else 'have'} another size than "
                f"{first}. {_SAME_SIZE}"
            )
            raise DataError(msg)

    @property
    def stacked(self) -> bool:
        """Whether any examinations form one batch: those of a table, or images of one shape."""
        if not self._has_images or self._study.data.size is not None or not self._listed:
            return True
        return self._prepared.stack is not None

    @property
    def _has_images(self) -> bool:
        return self._study.data.kind == "image"

    @property
    def _has_masks(self) -> bool:
        return self._study.task.column == "mask"

    @property
    def _has_boxes(self) -> bool:
        return self._study.task.column == "boxes"

    @cached_property
    def examinations(self) -> tuple[Examination, ...]:
        """Those that are used; with ``skip_unreadable`` the images must be read to know them."""
        if self._has_images and self._source.site.skips_unreadable:
            return self._prepared.examinations
        return self._listed

    def __len__(self) -> int:
        return len(self.examinations)

    @property
    def left_out(self) -> int:
        """How many of the listed examinations cannot be used."""
        return len(self._listed) - len(self.examinations)

    @cached_property
    def waves(self) -> Tensor:
        """``(N,)`` int64: the wave of data in which each examination came."""
        return torch.tensor([e.wave for e in self.examinations], dtype=torch.int64)

    def of_wave(self, wave: int) -> "Cohort":
        """Return the examinations of one wave of data, as a cohort of their own."""
        return Cohort(self.split, [e for e in self._listed if e.wave == wave], self._source)

    @cached_property
    def patients(self) -> Tensor:
        """``(N,)`` int64: which patient each examination is of, counted from 0 as they appear."""
        number: dict[str, int] = {}
        places = [number.setdefault(e.patient, len(number)) for e in self.examinations]
        return torch.tensor(places, dtype=torch.int64)

    @property
    def patient_count(self) -> int:
        """Number of patients."""
        return len({examination.patient for examination in self.examinations})

    @cached_property
    def targets(self) -> Tensor:
        """What is to be found in each examination.

        ``(N, ...)`` as the task stacks its labels. Where the target is a mask, which comes with
        the batches, ``(N, K)`` float: which classes it holds. ``(N, M, 1 + 2 dims)`` where they
        are boxes, which lie where their images were moved to.
        """
        if self._has_boxes:
            boxes = [self._prepared.boxes_of(index) for index in range(len(self))]
            held = [one for one in boxes if one is not None]
            return stack_boxes(held, self._study.data.dimensions)
        labels = task_of(self._study).labels
        if self._has_masks or labels is None:
            return (self._voxels > 0).float()
        return labels.stack([e.label or () for e in self.examinations], self._study)

    @cached_property
    def _voxels(self) -> Tensor:
        """``(N, K)`` int64: voxels of each class in each mask."""
        classes = self._study.class_count
        counts = [
            torch.bincount(mask.flatten().int(), minlength=classes)[:classes]
            for index in range(len(self))
            if (mask := self._prepared.case(index).mask) is not None
        ]
        empty = torch.zeros((0, self._study.class_count), dtype=torch.int64)
        return torch.stack(counts) if counts else empty

    @cached_property
    def covariates(self) -> Tensor | None:
        """``(N, F)`` float32, scaled, with flags for what is lacking; None where there is none."""
        return encode_covariates(self.examinations, self._study.data, self._source.scales)

    def class_counts(self) -> Tensor | None:
        """Return ``(K,)`` int64: examinations of each class, or voxels of masks; None without."""
        return self._voxels.sum(0) if self._has_masks else self.case_counts()

    def case_counts(self) -> Tensor | None:
        """Return ``(K,)`` int64: examinations that are of a class, or whose mask holds it.

        None where the task has no classes.
        """
        return task_of(self._study).cases_of_classes(self.targets, self._study)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report must say; of images, only once they have been read."""
        notes: list[str] = []
        was_read = "_prepared" in self.__dict__
        if was_read:
            notes += self._prepared.notes
        if self._listed and (was_read or not (self._has_masks or self._has_boxes)):
            counts = self.case_counts()
            absent = [] if counts is None else (counts == 0).nonzero().flatten().tolist()
            names = self._study.data.classes
            if self._has_boxes and was_read:
                notes += self._misfits()
            if absent:
                lacking = ", ".join(names[index] for index in absent)
                notes.append(f"no patient of class {lacking} in {self.split}")
        return tuple(notes)

    def _misfits(self) -> list[str]:
        """Return whether the boxes are of other sizes than the anchors that look for them."""
        model = self._study.model
        note = misfit_note(self.targets, anchor_sides(model.features, model.anchors))
        return [f"in {self.split} {note}"] if note else []

    def spacing(self, index: int) -> tuple[float, ...]:
        """Return the millimetres a voxel of a prepared examination, 1 where unknown."""
        return self._prepared.spacing(index)

    def stored_mask(self, index: int) -> StoredMask | None:
        """Return a mask as it was stored; None where the prepared one has its grid, or is none.

        Those of training patients are not kept in memory: nobody scores their predictions.
        """
        return self._prepared.stored_mask(index) if self._has_images and self._has_masks else None

    @cached_property
    def _spacings(self) -> Tensor:
        """``(N, dimensions)`` float32: millimetres a voxel of each prepared examination."""
        return torch.tensor([self.spacing(index) for index in range(len(self))])

    @cached_property
    def grey_steps(self) -> Tensor:
        """``(N, C)`` float32: what one 255th of an image's grey range is to the network.

        Each image is read once more for it, when it is first asked for.
        """
        from wardround.client.data.preprocessing.grey_values import grey_steps

        site, study = self._source.site, self._study
        found = [
            torch.from_numpy(grey_steps(read_channels(e, site, study), study.data))
            for e in self.examinations
        ]
        return torch.stack(found) if found else torch.zeros((0, study.data.planes))

    def case(self, index: int, device: torch.device = _CPU) -> Batch:
        """Return one whole examination as a batch of one, without randomness."""
        return self.batch(torch.tensor([index]), device=device)

    def batch(
        self,
        indices: Tensor,
        generator: Generator | None = None,
        device: torch.device = _CPU,
    ) -> Batch:
        """Return a batch.

        Args:
            indices: ``(B,)`` int64 into the cohort.
            generator: Of the CPU, for patches and augmentation; None gives whole images as they
                are. With ``training.patch_size`` a drawn batch has ``patches_per_image`` examples
                an index, one index after the other.
            device: Where the batch goes, before it is augmented, with what is drawn for it.

        Raises:
            DataError: Whole images of different sizes cannot form one batch.
        """
        study = self._study
        if generator is None:
            return hidden(self._whole(indices).to(device), study, None).widened()
        if study.training.patch_size is not None and self._has_images:
            batch = self._patched(indices, generator)
        else:
            batch = accepted(self._whole(indices), study)
        batch = with_less(batch, study, generator)
        batch = augmented(batch, study, lambda: self._spacings[indices], generator, device)
        return hidden(batch.to(device), study, generator).widened()

    def _whole(self, indices: Tensor) -> Batch:
        covariates = None if self.covariates is None else self.covariates[indices]
        if not self._has_images:
            return Batch(None, covariates, self.targets[indices])
        images, masks = self._images_and_masks(indices)
        return Batch(images, covariates, self.targets[indices] if masks is None else masks)

    def _images_and_masks(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        stack = self._prepared.stack
        if stack is not None:
            masks = None if stack.masks is None else stack.masks.index_select(0, indices)
            return stack.images.index_select(0, indices), masks
        cases = [self._prepared.case(index) for index in indices.tolist()]
        if len({case.image.shape for case in cases}) > 1:
            msg = f"{len(cases)} images of different sizes cannot form one batch. {_SAME_SIZE}"
            raise DataError(msg)
        labels = [case.mask for case in cases if case.mask is not None]
        return torch.stack([c.image for c in cases]), torch.stack(labels) if labels else None

    def _patched(self, indices: Tensor, generator: Generator) -> Batch:
        examples = [
            example
            for index in indices.tolist()
            for example in self._patches.draw(index, self._prepared.case(index), generator)
        ]
        repeats = self._study.training.patches_per_image
        covariates = None
        if self.covariates is not None:
            covariates = self.covariates[indices].repeat_interleave(repeats, dim=0)
        images = torch.stack([image for image, _ in examples])
        return Batch(images, covariates, torch.stack([mask for _, mask in examples]))


def _by(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in size)
