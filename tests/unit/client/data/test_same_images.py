"""One image under two names: refused where it trains and tests, said where it does not."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.support.tables import Pictures, make_pictures

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.cells import parse_location
from wardround.client.data.same_images import Held, find_same_images, require_parted
from wardround.client.site.folder import open_site
from wardround.common.errors import DataError
from wardround.simulations.studies import find_study

DRAW = np.random.default_rng(0)


def picture(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels.astype(np.uint8)).save(path, compress_level=9)
    return path.name


def volume(path: Path, values: np.ndarray) -> str:
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    return path.name


def held(folder: Path, *rows: tuple[str, str, str]) -> list[Held]:
    """Return rows of (patient, part, files), several files of channels apart by +."""
    found = []
    for number, (patient, part, files) in enumerate(rows, start=2):
        images = tuple(parse_location(file, folder.joinpath) for file in files.split("+"))
        found.append(Held(number, patient, part, (0,), images))
    return found


def saved_anew(folder: Path) -> tuple[str, str]:
    pixels = DRAW.integers(0, 255, (16, 16))
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "b.png", compress_level=0)
    return picture(folder / "a.png", pixels), "b.png"


def copied(folder: Path) -> tuple[str, str]:
    first = picture(folder / "a.png", DRAW.integers(0, 255, (16, 16)))
    (folder / "b.png").write_bytes((folder / first).read_bytes())
    return first, "b.png"


def linked(folder: Path) -> tuple[str, str]:
    first = picture(folder / "a.png", DRAW.integers(0, 255, (16, 16)))
    (folder / "link.png").symlink_to(folder / first)
    return first, "link.png"


def one_file(folder: Path) -> tuple[str, str]:
    return (picture(folder / "a.png", DRAW.integers(0, 255, (16, 16))),) * 2


def as_array(folder: Path) -> tuple[str, str]:
    pixels = DRAW.integers(0, 255, (16, 16)).astype(np.uint8)
    np.save(folder / "set.npy", np.stack([pixels, pixels + 1]))
    return picture(folder / "a.png", pixels), "set.npy#0"


def items(folder: Path) -> tuple[str, str]:
    pixels = DRAW.integers(0, 255, (16, 16)).astype(np.uint8)
    np.savez(folder / "set.npz", train=np.stack([pixels + 1, pixels]), test=pixels[None])
    return "set.npz#train#1", "set.npz#test#0"


@pytest.mark.parametrize(
    ("make", "is_refused"),
    [
        (copied, True),
        (linked, True),
        (saved_anew, False),
        (one_file, False),
        (as_array, False),
        (items, False),
    ],
)
def test_one_image_under_two_names_is_found_and_a_copy_is_refused(
    tmp_path: Path, make: Callable[[Path], tuple[str, str]], is_refused: bool
) -> None:
    first, second = make(tmp_path)
    other = picture(tmp_path / "other.png", DRAW.integers(0, 255, (16, 16)))
    rows = held(tmp_path, ("p", "train", first), ("q", "train", other), ("r", "test", second))
    if is_refused:
        with pytest.raises(DataError, match="trained on and tested on, in rows 2, 4: keep one"):
            require_parted(rows, 2)
    else:
        assert "trained on and tested on, in rows 2, 4: keep one" in require_parted(rows, 2)[0]
    assert require_parted(rows, 2, refuses=False)[0].startswith("the same image is trained on")
    (note,) = require_parted(
        held(tmp_path, ("p", "train", first), ("q", "train", other), ("r", "train", second)), 2
    )
    assert note.startswith("1 images stand twice or more of different patients, e.g. in rows 2, 4")


def test_volumes_packed_anew_are_the_same(tmp_path: Path) -> None:
    first = volume(tmp_path / "a.nii.gz", DRAW.normal(size=(6, 7, 8)))
    again = gzip.compress(gzip.decompress((tmp_path / first).read_bytes()), compresslevel=1)
    (tmp_path / "b.nii.gz").write_bytes(again)
    rows = held(tmp_path, ("p", "train", first), ("q", "validation", "b.nii.gz"))
    assert "trained on and tested on, in rows 2, 3" in find_same_images(rows, 3).notes()[0]


def test_channels_that_nobody_took_are_not_one_image(tmp_path: Path) -> None:
    blank = volume(tmp_path / "blank.nii.gz", np.zeros((6, 7, 8)))
    one, two = (volume(tmp_path / f"{n}.nii.gz", DRAW.normal(size=(6, 7, 8))) for n in "ab")
    rows = held(tmp_path, ("p", "train", f"{one}+{blank}"), ("q", "test", f"{two}+{blank}"))
    assert find_same_images(rows, 3).groups == ()
    rows = held(tmp_path, ("p", "train", blank), ("q", "test", blank))
    assert find_same_images(rows, 3).groups == ()


def test_what_cannot_be_read_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    rows = held(tmp_path, *((n, s, f"{n}.png") for n in ("empty", "torn", "gone") for s in "ab"))
    assert find_same_images(rows, 2).notes() == (
        "the same image is trained on and tested on, in rows 4, 5: keep one row of each, or write "
        "the same patient and split in all of them",
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    pictures = make_pictures(tmp_path)
    rows = pictures.rows()
    (tmp_path / "copy.png").write_bytes((tmp_path / rows[0][1]).read_bytes())
    rows[11][1] = "copy.png"
    pictures.write(rows)
    return pictures


def test_a_hospital_whose_copied_image_trains_and_tests_is_refused(pictures: Pictures) -> None:
    study = find_study(str(pictures.study))
    with pytest.raises(DataError, match="trained on and tested on, in rows 2, 13"):
        open_cohorts(open_site(pictures.folder), study)


def test_a_simulation_whose_copied_image_trains_and_tests_is_refused(
    pictures: Pictures, wardround, tmp_path
) -> None:
    said = wardround("split", pictures.study, "--out", tmp_path / "run")
    assert said.code == 2
    assert f"{pictures.manifest} is refused: the same image is trained on" in said.err
    assert "in rows 2, 13" in said.err
    assert not (tmp_path / "run").exists()
