"""What models say of a site's cases: each member's probabilities, or how far masks differ."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.explanations.uncertainty import dropout_layers, dropping
from wardround.client.clinic.inference.inputs import Input, read_images
from wardround.client.clinic.inference.prediction import Classified, Prediction, Segmented
from wardround.client.clinic.inference.predictor import Predictor, load_predictor
from wardround.client.clinic.review.cases import Case
from wardround.client.clinic.review.scores import Floats, disjointness
from wardround.client.data.reading.image import Image
from wardround.common.errors import InputError, WardroundError
from wardround.common.runtime.seeds import dropout_seeded
from wardround.common.study.study import Study

PASSES = 10  # with other values dropped
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Opinions:
    """What the members of a committee say.

    Attributes:
        cases: Those that could be read, in order.
        probabilities: ``(M, N, K)`` of a classification; None of a segmentation.
        scores: ``(N,)`` of a segmentation, larger is less sure; None of a classification.
        features: ``(N, F)`` in which cases lie near that look alike to the models.
        left_out: Why others could not be read, by how many.
        nothing_found: Of a segmentation: in how many cases nothing was found, which counts as sure.
    """

    cases: tuple[Case, ...]
    probabilities: Floats | None
    scores: Floats | None
    features: Floats
    left_out: dict[str, int] = field(default_factory=dict)
    nothing_found: int = 0


@dataclass(frozen=True)
class Committee:
    """Models that are asked one by one, or one model with other values dropped each time.

    Attributes:
        predictors: One a model.
        by: What makes a case unsure, as in SCORES.
        passes: How often each is asked; more than once with dropout.
    """

    predictors: tuple[Predictor, ...]
    by: str = "entropy"
    passes: int = 1

    @property
    def study(self) -> Study:
        """Of the first model; the data of all are alike."""
        return self.predictors[0].study

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted for each model before."""
        return all(one.contract.temperature is not None for one in self.predictors)

    def ask(self, cases: Sequence[Case], progress: Progress = lambda done, of: None) -> Opinions:
        """Return what the members say of cases; those that cannot be read are counted.

        Raises:
            InputError: None can be read.
        """
        read, said = list[Case](), list[list[Prediction]]()
        left_out: dict[str, int] = {}
        batches = _batches(cases, self.predictors[0].batch_size)
        for batch in batches:
            for case, members in self._of_batch(batch, left_out):
                read.append(case)
                said.append(members)
            progress(len(read) + sum(left_out.values()), len(cases))
        if not read:
            reasons = "; ".join(left_out) or "there is none"
            msg = f"none of the {len(cases)} cases can be predicted: {reasons}"
            raise InputError(msg)
        return _opinions(read, said, left_out, self.by != "entropy")

    def mask_of(self, case: Case) -> NDArray[np.uint8]:
        """Return the mask of the first model, on the grid of the case's image as it was read."""
        one = self.predictors[0]
        prepared = one.prepare_several([_given(case, self.study)])
        return _of_mask(one.predict_prepared(prepared)[0]).labels.astype(np.uint8)

    def _of_batch(
        self, batch: Sequence[Case], left_out: dict[str, int]
    ) -> Iterator[tuple[Case, list[Prediction]]]:
        try:
            given = [_given(case, self.study) for case in batch]
            with self._dropping():
                members = [
                    one.predict_prepared(prepared)
                    for one in self.predictors
                    for prepared in [one.prepare_several(given)]
                    for _ in range(self.passes)
                ]
        except WardroundError as error:
            if len(batch) == 1:
                left_out[str(error)] = left_out.get(str(error), 0) + 1
                return
            for case in batch:  # one of them is at fault; the others are asked about all the same
                yield from self._of_batch([case], left_out)
            return
        for at, case in enumerate(batch):
            yield case, [member[at] for member in members]

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Have the networks drop values, the same ones whenever a queue is made again."""
        if self.passes == 1:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(dropout_seeded(0, self.predictors[0].device))
            layers = [
                layer
                for one in self.predictors
                for network in one.networks
                for layer in dropout_layers(network)
            ]
            stack.enter_context(dropping(layers))
            try:
                yield
            finally:
                for layer in layers:
                    layer.training = False


def open_committee(folders: Sequence[Path], by: str, device: str = "auto") -> Committee:
    """Return the models that are asked.

    Args:
        by: As in SCORES.

    Raises:
        InputError: The way of scoring needs more models, or dropout.
        ModelError: A folder is no model, or does not fit the others.
    """
    if by == "disagreement" and len(folders) < 2:
        msg = (
            "disagreement needs two or more models, e.g. those that the sites trained alone: give "
            "--model once for each, or use --by entropy."
        )
        raise InputError(msg)
    load_predictor(folders, device)  # says whether they fit together
    predictors = tuple(load_predictor(one, device, uncertainty=True) for one in folders)
    if by != "bald":
        return Committee(predictors, by)
    if not all(dropout_layers(net) for one in predictors for net in one.networks):
        msg = (
            "BALD asks a network with other values dropped each time, and this one drops none: "
            "train with model.dropout, or use --by entropy."
        )
        raise InputError(msg)
    return Committee(predictors, by, PASSES)


def _given(case: Case, study: Study) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    one = case.examination
    images = read_images(Input("", one.images, one.covariates, one.row), study)
    return images, one.covariates


def _batches(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    rest = iter(cases)
    while batch := list(islice(rest, size)):
        yield batch


def _opinions(
    cases: Sequence[Case],
    said: Sequence[Sequence[Prediction]],
    left_out: dict[str, int],
    is_apart: bool,
) -> Opinions:
    if isinstance(said[0][0], Classified):
        members = np.array([[_of_class(one) for one in some] for some in said], dtype=np.float64)
        by_member = members.transpose(1, 0, 2)
        return Opinions(tuple(cases), by_member, None, np.sqrt(by_member.mean(axis=0)), left_out)
    masks = [[_of_mask(one) for one in some] for some in said]
    empty = sum(all(one.entropy is None for one in some) for some in masks)
    scores = [
        disjointness([one.labels for one in some])
        if is_apart
        else float(np.mean([one.entropy or 0.0 for one in some]))
        for some in masks
    ]
    shares = [np.mean([np.sqrt(_shares(one)) for one in some], axis=0) for some in masks]
    return Opinions(tuple(cases), None, np.array(scores), np.array(shares), left_out, empty)


def _of_class(one: Prediction) -> tuple[float, ...]:
    if not isinstance(one, Classified):
        msg = "a classification says classes"
        raise TypeError(msg)
    return one.probabilities


def _of_mask(one: Prediction) -> Segmented:
    if not isinstance(one, Segmented):
        msg = "a segmentation says masks"
        raise TypeError(msg)
    return one


def _shares(one: Segmented) -> Floats:
    voxels = np.array(one.voxels, dtype=np.float64)
    shares: Floats = voxels / max(voxels.sum(), 1.0)
    return shares
