"""A batch of whole patients, and the pieces it is cut into."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.patient_batch import PatientBatch

counts_of_patients = st.lists(st.integers(1, 9), max_size=8).map(tuple)


def batch_of(counts: tuple[int, ...]) -> PatientBatch:
    numbers = torch.arange(sum(counts))
    return PatientBatch(Batch(numbers[:, None].float(), None, numbers), counts)


@given(counts=counts_of_patients)
def test_every_example_has_its_owner(counts: tuple[int, ...]) -> None:
    batch = batch_of(counts)
    assert batch.patients == len(counts)
    assert torch.bincount(batch.patient_index, minlength=len(counts)).tolist() == list(counts)
    assert (batch.patient_index.diff() >= 0).all()
    assert batch.patient_index.dtype == torch.int64


@given(counts=counts_of_patients, microbatch=st.integers(1, 20))
def test_pieces_hold_whole_patients_and_no_more_than_the_micro_batch(
    counts: tuple[int, ...], microbatch: int
) -> None:
    batch = batch_of(counts)
    pieces = list(batch.pieces(microbatch))
    assert tuple(count for piece in pieces for count in piece.counts) == counts
    targets = [piece.examples.targets for piece in pieces]
    assert torch.equal(
        torch.cat([torch.empty(0, dtype=torch.int64), *targets]), torch.arange(sum(counts))
    )
    for piece in pieces:
        assert piece.patients >= 1
        assert piece.patients == 1 or len(piece.examples) <= microbatch
        assert piece.examples.images is not None
        assert len(piece.examples.images) == len(piece.examples)


def test_pieces_are_as_large_as_the_micro_batch_allows() -> None:
    assert [piece.counts for piece in batch_of((2, 2, 9, 1, 1)).pieces(4)] == [(2, 2), (9,), (1, 1)]


def test_nobody_is_a_batch_without_pieces() -> None:
    assert list(batch_of(()).pieces(4)) == []
    assert batch_of(()).patient_index.tolist() == []


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (0, 3), (4, -1)])
def test_counts_that_do_not_describe_the_examples_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not describe 3 examples"):
        PatientBatch(Batch(None, None, torch.zeros(3)), counts)


def test_a_micro_batch_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        list(batch_of((1,)).pieces(0))


def test_a_batch_moves_with_its_counts() -> None:
    moved = batch_of((2, 1)).to(torch.device("meta"))
    assert moved.counts == (2, 1)
    assert moved.examples.targets.device.type == "meta"
