"""Lesions one by one, on drawn examples."""

import numpy as np
from numpy.typing import NDArray

from wardround.client.tasks.lesions import MOST_PARTS, count_lesions


def grid(*rows: str) -> NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_lesions_found_missed_and_false() -> None:
    truth = grid("##....", "##....", "....#.", "......", "#....#")
    marked = grid("#.....", "......", "......", "..##..", "#.....")

    found = count_lesions(truth, marked)

    assert found is not None
    assert sorted(zip(found.voxels.tolist(), found.covered.tolist(), strict=True)) == [
        (1, 0),
        (1, 0),
        (1, 1),
        (4, 1),
    ]
    assert (found.found, found.false) == (2, 1)


def test_voxels_that_touch_at_a_corner_are_one_lesion_in_2d_and_in_3d() -> None:
    flat = count_lesions(grid("#..", ".#.", "..#"), grid("...", "...", "..."))
    assert flat is not None
    assert flat.voxels.tolist() == [3]
    solid = np.zeros((4, 4, 4), bool)
    for place in range(4):
        solid[place, place, place] = True  # along the diagonal of a cube
    deep = count_lesions(solid, np.zeros_like(solid))
    assert deep is not None
    assert deep.voxels.tolist() == [4]
    solid[1, 1, 1] = False
    broken = count_lesions(solid, solid)
    assert broken is not None
    assert sorted(broken.voxels.tolist()) == [1, 2]


def test_one_mark_over_two_lesions_finds_both_and_is_not_false() -> None:
    found = count_lesions(grid("#.#"), grid("###"))
    assert found is not None
    assert (found.found, found.false) == (2, 0)


def test_nothing_to_find_and_nothing_found() -> None:
    nothing = count_lesions(grid("...."), grid("...."))
    assert nothing is not None
    assert (len(nothing.voxels), nothing.false) == (0, 0)


def test_a_tissue_of_many_parts_is_not_counted() -> None:
    dotted = np.zeros((2 * MOST_PARTS, 3), bool)
    dotted[::2, 1] = True
    assert count_lesions(dotted, np.zeros_like(dotted)) is None
