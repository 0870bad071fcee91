"""A slice to the browser and back: the same labels, and nothing that fits no image."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.page.review.drawing import Slices, pack_labels, unpack_labels
from wardround.common.errors import InputError


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 4), min_size=n, max_size=n), min_size=1, max_size=6
        )
    )
)
def test_labels_come_back_as_they_went(rows: list[list[int]]) -> None:
    labels = np.array(rows, dtype=np.uint8)
    assert np.array_equal(unpack_labels(pack_labels(labels), labels.shape, 5), labels)


@pytest.mark.parametrize(
    "text",
    ["", "0:5", "0:7", "2:6", "0:-6", "0:6,", "x", "0:99999999999", "0:6;1:1", "٠:6", "0:3,9:3"],
)
def test_what_fits_no_image_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="does not fit the image"):
        unpack_labels(text, (2, 3), 2)


@given(st.text(max_size=30))
def test_no_text_does_anything_else(text: str) -> None:
    with suppress(InputError):
        assert unpack_labels(text, (2, 3), 2).shape == (2, 3)


def test_a_slice_is_put_back_where_it_was_seen() -> None:
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    slices, copy = Slices(volume.shape), volume.copy()
    assert slices.count == 4
    for at in range(4):
        slices.put(copy, at, slices.view(volume, at))
    assert np.array_equal(copy, volume)
    seen = slices.view(volume, 1)
    assert seen.shape == (3, 2)
    assert seen[0, 0] == volume[0, 2, 1]
