"""Pictures as cameras, drawing programs and data sets write them, as images and as masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageFile

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask

LESION = np.zeros((40, 40), np.uint8)
LESION[10:30, 10:30] = 1
VOID = LESION.copy()
VOID[8:10, 8:32] = VOID[30:32, 8:32] = 255  # the border that VOC writes around an object


def saved(path: Path, values: np.ndarray, mode: str | None = None, **options: Any) -> Location:
    picture = Picture.fromarray(values)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return Location(path)


def palette(path: Path, values: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> Location:
    picture = Picture.fromarray(values, "L").copy()
    indexed = Picture.new("P", picture.size)
    indexed.putdata(values.flatten().tolist())
    listed = [part for index in range(256) for part in colours.get(index, (index,) * 3)]
    indexed.putpalette(listed)
    indexed.save(path)
    return Location(path)


def test_white_beside_other_labels_is_never_the_lesion(tmp_path: Path) -> None:
    places = [
        saved(tmp_path / "grey.png", VOID),
        palette(tmp_path / "voc.png", VOID, {1: (128, 0, 0), 255: (224, 224, 192)}),
        saved(tmp_path / "deep.png", np.where(VOID == 255, 65535, VOID).astype(np.uint16)),
        saved(tmp_path / "tagged.tif", VOID),
    ]
    for place in places:
        with pytest.raises(UnreadableError, match=r"its labels are 0, 1 and (255|65535)"):
            read_mask(place, 2, 2)


def test_what_nobody_annotated_is_kept_apart_where_the_study_says_its_label(
    tmp_path: Path,
) -> None:
    mask = read_mask(saved(tmp_path / "m.png", VOID), 2, 2, ignore_label=255)
    np.testing.assert_array_equal(mask.array[0], np.where(VOID == 255, 2, VOID))
    np.save(tmp_path / "m.npy", np.where(VOID == 255, -1, VOID.astype(np.int16)))
    mask = read_mask(Location(tmp_path / "m.npy"), 2, 2, ignore_label=-1)
    np.testing.assert_array_equal(mask.array[0], np.where(VOID == 255, 2, VOID))
    half = np.where(VOID == 1, 255, np.where(VOID == 255, 127, 0)).astype(np.uint8)
    mask = read_mask(saved(tmp_path / "w.png", half), 2, 2, ignore_label=127)
    np.testing.assert_array_equal(mask.array[0], np.where(VOID == 255, 2, VOID))


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (LESION * 255, None),
        (LESION.astype(np.uint16) * 65535, None),
        (LESION.astype(np.uint16) * 255, None),
        (LESION * 255, "1"),
        (LESION * 255, "RGB"),
        (LESION * 255, "LA"),
        (LESION * 255, "RGBA"),
        (LESION, None),
        (LESION.astype(np.uint16), None),
    ],
)
def test_a_lesion_in_white_or_by_its_index_is_class_one(
    tmp_path: Path, values: np.ndarray, mode: str | None
) -> None:
    mask = read_mask(saved(tmp_path / "m.png", values, mode), 2, 2)
    np.testing.assert_array_equal(mask.array[0], LESION)


def test_greys_are_the_edge_of_a_mask_that_was_made_smaller_and_nothing_else(
    tmp_path: Path,
) -> None:
    y, x = np.mgrid[:256, :256]
    disc = (np.hypot(y - 128, x - 120) < 90).astype(np.uint8) * 255
    small = Picture.fromarray(disc).resize((48, 48), Picture.Resampling.LANCZOS)
    small.save(tmp_path / "small.png")
    mask = read_mask(Location(tmp_path / "small.png"), 2, 2).array[0]
    np.testing.assert_array_equal(mask, np.asarray(small) > 127)
    classes = np.kron(np.arange(10), np.ones((12, 12))).astype(np.uint8)
    classes[:, -12:] = 255
    with pytest.raises(UnreadableError, match="0, 1, 2, 3, 4 and 5 more"):
        read_mask(saved(tmp_path / "areas.png", classes), 2, 2)


def test_a_mask_in_jpeg_is_black_and_white_or_refused(tmp_path: Path) -> None:
    place = saved(tmp_path / "m.jpg", LESION * 255, quality=60)
    assert (read_mask(place, 2, 2).array[0] != LESION).mean() < 0.01
    grey = np.full((40, 40), 128, np.uint8)
    grey[:10], grey[30:] = 0, 255
    with pytest.raises(UnreadableError, match="as PNG"):
        read_mask(saved(tmp_path / "g.jpg", grey), 2, 2)


def test_a_palette_that_shows_the_opposite_of_its_indices_is_refused(tmp_path: Path) -> None:
    place = palette(tmp_path / "m.png", LESION, {0: (255, 255, 255), 1: (0, 0, 0)})
    with pytest.raises(UnreadableError, match="shows the index 0 in white"):
        read_mask(place, 2, 2)


def test_a_mask_drawn_in_its_transparency_is_refused(tmp_path: Path) -> None:
    drawn = np.full((40, 40, 4), 255, np.uint8)
    drawn[..., 3] = LESION * 255
    place = saved(tmp_path / "m.png", drawn)
    for read in (lambda: read_mask(place, 2, 2), lambda: read_image(place, 2, colour=True)):
        with pytest.raises(UnreadableError, match="75% of its pixels are transparent"):
            read()


def test_colours_of_print_are_turned_into_those_of_a_screen(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    image = read_image(saved(tmp_path / "p.jpg", red, "CMYK", quality=95), 2, colour=True)
    assert np.abs(image.array.mean(axis=(1, 2)) - [200, 0, 0]).max() < 6


@pytest.mark.parametrize("name", ["pages.tif", "film.gif", "film.png"])
def test_a_file_of_many_pictures_is_refused_as_image_and_as_mask(tmp_path: Path, name: str) -> None:
    pages = [Picture.fromarray(np.roll(LESION, page, axis=0) * 255) for page in range(5)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    for read in (
        lambda: read_image(Location(tmp_path / name), 2),
        lambda: read_image(Location(tmp_path / name), 3),
        lambda: read_mask(Location(tmp_path / name), 2, 2),
    ):
        with pytest.raises(UnreadableError, match="it holds 5 pictures"):
            read()


def test_a_picture_beyond_memory_is_refused_by_its_size_and_not_as_damaged(tmp_path: Path) -> None:
    Picture.new("1", (16000, 12000)).save(tmp_path / "slide.png")
    for read in (
        lambda: read_image(Location(tmp_path / "slide.png"), 2),
        lambda: read_mask(Location(tmp_path / "slide.png"), 2, 2),
    ):
        with pytest.raises(UnreadableError, match="192 megapixels, and at most 179 can be read"):
            read()


def test_a_photograph_is_turned_by_its_exif_data_in_jpeg_too(tmp_path: Path) -> None:
    bright = np.zeros((32, 48), np.uint8)
    bright[:8] = 250  # the top
    exif = Picture.Exif()
    exif[0x0112] = 8  # to be turned by 90 degrees against the clock
    image = read_image(saved(tmp_path / "p.jpg", bright, exif=exif, quality=95), 2)
    assert image.array.shape == (1, 48, 32)
    assert image.array[0, :, :6].min() > 200
    assert image.array[0, :, 12:].max() < 50


def test_half_a_picture_is_refused_though_another_package_allowed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = saved(tmp_path / "half.jpg", np.tile(np.arange(200, dtype=np.uint8), (200, 1)))
    whole = place.path.read_bytes()
    place.path.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableError):
        read_image(place, 2)
