"""One study into the site folder: de-identified, checked, and in its place as a whole or not."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from wardround.client.clinic.onboarding.archive_images.folder import read_whole
from wardround.client.clinic.onboarding.archive_images.series import SourceSeries, SourceStudy
from wardround.client.clinic.onboarding.choice import LeftOutError
from wardround.client.clinic.onboarding.deidentification.burned_in_text import (
    Box,
    TextCheck,
    always_looked_at,
    mask_text,
)
from wardround.client.clinic.onboarding.deidentification.dates import day_number
from wardround.client.clinic.onboarding.deidentification.dicom_file import (
    RefusedFileError,
    deidentify,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import (
    KeyedMaps,
    normal_identifier,
)
from wardround.client.clinic.onboarding.journal import ImportedStudy, Journal
from wardround.client.clinic.onboarding.labels.joined import LabelSources
from wardround.client.clinic.onboarding.rules import ImportRules
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image
from wardround.client.site.folder import Site
from wardround.common.files.atomic import flush, make_private_folder, put_in_place, write_new

DATA_FOLDER = "data"
_DAY_SECONDS = 86_400
_NAME_DIGITS = 16  # of a study's digest, in the name of its folder
_SIZES = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
_MOST_VALUES = 2**31  # 2,000 slices of 1,000 x 1,000
_SAMPLE = 3  # images of a series that seldom has text: its first, its middle, its last


@dataclass
class StudyImporter:
    """Imports studies into one site.

    Attributes:
        text: How text in pixels is looked for; None where the rules leave it.
        masked: Images in which text was masked so far.
        searched: Images whose pixels were looked at for text so far.
    """

    site: Site
    rules: ImportRules
    maps: KeyedMaps
    journal: Journal
    labels: LabelSources
    text: TextCheck | None
    masked: int = 0
    searched: int = 0
    _staged: Path = field(init=False)

    def __post_init__(self) -> None:
        self._staged = self.site.folder / DATA_FOLDER / ".importing"

    def digest_of(self, study: SourceStudy) -> str:
        """Return by what the journal knows a study."""
        return self.maps.digest(study.uid.strip())

    def import_study(
        self,
        study: SourceStudy,
        channels: dict[str, SourceSeries],
        cells: dict[str, str],
        mask: Dataset | None,
    ) -> ImportedStudy:
        """Write a study to its place, and then into the journal.

        Args:
            channels: The series of each channel, their files at hand.
            cells: Its labels.

        Raises:
            LeftOutError: One of its files, or the volume that they make, cannot be used.
            OSError: It cannot be written.
        """
        patient, digest = self.maps.pseudonym(study.patient), self.digest_of(study)
        place = self.site.folder / DATA_FOLDER / patient / digest[:_NAME_DIGITS]
        shutil.rmtree(self._staged, ignore_errors=True)
        make_private_folder(self._staged)
        try:
            for name, series in channels.items():
                self._write_series(series, self._staged / name)
            if mask is not None:
                self._write_mask(mask)
            make_private_folder(place.parent)
            shutil.rmtree(place, ignore_errors=True)  # of a run that was killed before its line
            put_in_place(self._staged, place)
        finally:
            shutil.rmtree(self._staged, ignore_errors=True)
        imported = self._row(study, digest, place, {**cells}, mask is not None, list(channels))
        self.journal.add(imported)
        return imported

    def planned(
        self, study: SourceStudy, channels: list[str], cells: dict[str, str]
    ) -> ImportedStudy:
        """Return what the manifest would say of a study; nothing is written."""
        digest = self.digest_of(study)
        patient = self.maps.pseudonym(study.patient)
        place = self.site.folder / DATA_FOLDER / patient / digest[:_NAME_DIGITS]
        has_mask = self.rules.labels.masks is not None
        return self._row(study, digest, place, cells, has_mask, channels)

    def _row(
        self,
        study: SourceStudy,
        digest: str,
        place: Path,
        cells: dict[str, str],
        has_mask: bool,
        channels: list[str],
    ) -> ImportedStudy:
        patient = self.maps.pseudonym(study.patient)
        number = day_number(study.date)
        days = self.maps.offset_seconds(study.patient, whole_days=True) // _DAY_SECONDS
        moved = None if number is None else number + days
        first = self.journal.first_day(patient)
        row = {
            "patient": patient,
            "examination": ""
            if moved is None
            else str(moved - (moved if first is None else first)),
            **cells,
        }
        for rule in self.rules.channels:
            if rule.name in channels:
                row[rule.column] = self._cell(place / rule.name)
        if has_mask:
            row["mask"] = self._cell(place / "mask.dcm")
        return ImportedStudy(digest, patient, moved, row)

    def _cell(self, path: Path) -> str:
        root = self.site.data_root
        path = path.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _write_series(self, series: SourceSeries, folder: Path) -> None:
        if series.expected is not None and series.expected != len(series.files):
            msg = "a series is incomplete: fewer images came than the archive lists"
            raise LeftOutError(msg)
        make_private_folder(folder)
        is_looked_at = self._needs_a_look_at_each(series)
        for number, source in enumerate(_whole_files(series), start=1):
            if normal_identifier(str(source.get("PatientID", ""))) != normal_identifier(
                series.patient
            ):
                msg = "a series names two patients"
                raise LeftOutError(msg)
            _check_claim(source)
            cleaned, is_masked = self._without_text(source, is_looked_at)
            self._write(cleaned, folder / f"{number:05d}.dcm", frozenset(), is_masked)
        flush(folder)
        self._check_volume(series, folder)

    def _needs_a_look_at_each(self, series: SourceSeries) -> bool:
        """Return whether each image of a series is looked at, after a look at some of them."""
        if self.text is None or not series.files:
            return False
        places = sorted({0, len(series.files) // 2, len(series.files) - 1})[:_SAMPLE]
        files = series.in_order
        for place in places:
            source = _whole(files[place].path)
            _check_claim(source)
            if always_looked_at(source) or self._boxes(source):
                return True
        self.searched += len(places)
        return False

    def _boxes(self, source: Dataset) -> tuple[Box, ...]:
        if self.text is None:
            return ()
        try:
            return self.text.boxes(source)
        except Exception:  # decoders raise of every kind
            msg = "its pixels cannot be decoded, so text in them cannot be looked for"
            raise LeftOutError(msg) from None

    def _without_text(self, source: Dataset, is_looked_at: bool) -> tuple[Dataset, bool]:
        """Return an image without text in its pixels, and whether there was any."""
        said = str(source.get("BurnedInAnnotation", "") or "").upper() == "YES"
        is_looked_at = is_looked_at or always_looked_at(source)
        boxes = self._boxes(source) if is_looked_at else ()
        self.searched += is_looked_at and self.text is not None
        if self.text is None or not (boxes or said):
            return source, False
        if not self.text.mask:
            msg = "there is text in the pixels"
            raise LeftOutError(msg)
        try:
            masked = mask_text(source, boxes)
        except Exception:  # decoders raise of every kind
            msg = "there is text in pixels that cannot be decoded"
            raise LeftOutError(msg) from None
        if self._boxes(masked) or not boxes:
            msg = "there is text in the pixels that could not be masked"
            raise LeftOutError(msg)
        self.masked += 1
        return masked, True

    def _write_mask(self, mask: Dataset) -> None:
        masks = self.rules.labels.masks
        names = frozenset(masks.names) if masks is not None else frozenset()
        self._write(mask, self._staged / "mask.dcm", names, False)

    def _write(
        self, source: Dataset, path: Path, names: frozenset[str], pixels_cleaned: bool
    ) -> None:
        options = self.rules.deidentification
        try:
            result = deidentify(source, self.maps, options, names, pixels_cleaned)
        except RefusedFileError as error:
            msg = f"a file is refused: {error}"
            raise LeftOutError(msg) from None
        write_new(path, result.content)

    def _check_volume(self, series: SourceSeries, folder: Path) -> None:
        """Read what was written as training will, and compare its depth with what came."""
        try:
            image = read_image(Location(folder), self.rules.dimensions)
        except UnreadableError as error:
            msg = f"a series is no image: {error}"
            raise LeftOutError(msg) from None
        except Exception:  # decoders raise of every kind
            msg = "a series cannot be read back"
            raise LeftOutError(msg) from None
        if self.rules.dimensions == 3 and series.images not in image.array.shape[1:]:
            msg = "a series has more images than its volume has slices"
            raise LeftOutError(msg)


def _check_claim(source: Dataset) -> None:
    """Refuse a file that says it has more pixels than a computer holds: it may unpack to them."""
    try:
        values = math.prod(int(source.get(name, 1) or 1) for name in _SIZES)
    except (TypeError, ValueError):
        values = 0
    if not 0 < values <= _MOST_VALUES:
        msg = "a file claims more pixels than an image has, or none"
        raise LeftOutError(msg)


def _whole_files(series: SourceSeries) -> Iterator[Dataset]:
    for file in series.in_order:
        yield _whole(file.path)


def _whole(path: Path) -> Dataset:
    try:
        return read_whole(path)
    except Exception:  # pydicom raises of every kind, and quotes the file's values
        msg = "a file is damaged"
        raise LeftOutError(msg) from None
