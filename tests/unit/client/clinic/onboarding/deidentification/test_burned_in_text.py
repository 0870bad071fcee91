"""Text in the pixels: seen, masked, or the study is left out."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.client.clinic.onboarding.made_dicom import made_slice, write_series

from wardround.client.clinic.onboarding.archive_images.folder import index_folder
from wardround.client.clinic.onboarding.archive_images.series import SourceStudy
from wardround.client.clinic.onboarding.choice import LeftOutError
from wardround.client.clinic.onboarding.deidentification.burned_in_text import (
    Box,
    TextCheck,
    always_looked_at,
    mask_text,
    text_finder,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import open_secret
from wardround.client.clinic.onboarding.journal import open_journal
from wardround.client.clinic.onboarding.labels.joined import open_label_sources
from wardround.client.clinic.onboarding.rules import ImportLimits, ImportRules
from wardround.client.clinic.onboarding.study_import import StudyImporter
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.readers import read_image
from wardround.client.site.folder import open_site

BRIGHT = 60_000


def _bright_corner(picture: NDArray[np.uint8]) -> list[Box]:
    """Find the bright square that stands for text here; a real search takes a second a slice."""
    return [(0, 4, 0, 6)] if (picture[:4, :6] > 250).all() else []


@pytest.fixture
def importer(tmp_path: Path) -> StudyImporter:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "site.toml").write_text('name = "north"\n')
    site = open_site(tmp_path / "north")
    rules = ImportRules.model_validate({"channels": [{}]})
    maps, journal = open_secret(site.folder), open_journal(site.folder)
    labels = open_label_sources(rules, tmp_path)
    return StudyImporter(site, rules, maps, journal, labels, TextCheck(_bright_corner, mask=False))


def _pixels(has_text: bool) -> bytes:
    pixels = np.arange(144, dtype=np.uint16).reshape(12, 12)
    if has_text:
        pixels[:4, :6] = BRIGHT
    return pixels.tobytes()


def _study(folder: Path, has_text: bool, **values: object) -> SourceStudy:
    write_series(folder, BitsStored=16, HighBit=15, PixelData=_pixels(has_text), **values)
    (study,) = index_folder(folder, ImportLimits()).studies.values()
    return study


def test_a_series_with_text_is_left_out_where_the_policy_refuses(
    tmp_path: Path, importer: StudyImporter
) -> None:
    study = _study(tmp_path / "export", has_text=True)
    with pytest.raises(LeftOutError, match="there is text in the pixels"):
        importer.import_study(study, {"image": next(iter(study.series.values()))}, {}, None)
    assert not list((importer.site.folder / "data").glob("*/*"))


def test_text_is_set_to_the_background_where_the_policy_masks_it(
    tmp_path: Path, importer: StudyImporter
) -> None:
    importer.text = TextCheck(_bright_corner, mask=True)
    study = _study(tmp_path / "export", has_text=True)
    imported = importer.import_study(study, {"image": next(iter(study.series.values()))}, {}, None)
    assert (importer.masked, importer.searched) == (4, 4)
    image = read_image(Location(importer.site.folder / imported.cells["image"]), 3).array
    assert image.max() < BRIGHT
    assert image.max() == 143


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL"])
def test_colours_outside_the_text_stay(kind: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    values = {"SamplesPerPixel": 3, "PhotometricInterpretation": kind, "PlanarConfiguration": 0}
    depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": colours.tobytes()}
    source = made_slice(**values, **depth)
    masked = mask_text(source, [(0, 4, 0, 6)])
    assert np.array_equal(masked.pixel_array[4:], source.pixel_array[4:])
    assert len(np.unique(masked.pixel_array[:4, :6])) == 1


def test_an_image_that_says_it_has_text_is_refused_even_if_none_is_seen(
    tmp_path: Path, importer: StudyImporter
) -> None:
    study = _study(tmp_path / "export", has_text=False, BurnedInAnnotation="YES")
    with pytest.raises(LeftOutError, match="there is text in the pixels"):
        importer.import_study(study, {"image": next(iter(study.series.values()))}, {}, None)


@pytest.mark.parametrize(
    ("values", "is_always"),
    [
        ({"Modality": "US"}, True),
        ({"Modality": "XA"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SamplesPerPixel": 3}, True),
        ({"BurnedInAnnotation": "YES"}, True),
        ({"BurnedInAnnotation": "NO"}, False),
        ({}, False),
    ],
)
def test_kinds_that_often_have_text_are_always_looked_at(
    values: dict[str, object], is_always: bool
) -> None:
    assert always_looked_at(made_slice(**values)) is is_always


def test_without_the_package_the_command_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from wardround.common.errors import InputError

    text_finder.cache_clear()
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(InputError, match="pip install 'onnxruntime"):
        text_finder()
