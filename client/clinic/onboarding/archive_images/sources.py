"""Where studies come from: a folder, or the site's picture archive."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.client.clinic.onboarding.archive_images.folder import index_folder
from wardround.client.clinic.onboarding.archive_images.series import SourceSeries, SourceStudy
from wardround.client.clinic.onboarding.choice import LeftOutError, misfit, study_misfit
from wardround.client.clinic.onboarding.deidentification.keyed_maps import IMPORT_FOLDER
from wardround.client.clinic.onboarding.rules import ImportRules
from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder

if TYPE_CHECKING:
    from wardround.client.clinic.pacs.archive import Archive

INCOMING = "incoming"  # in the import folder: images as the archive sent them
_LABEL_MODALITIES = frozenset({"SEG", "RTSTRUCT", "SR"})


class FolderSource:
    """A folder of DICOM."""

    def __init__(self, folder: Path, rules: ImportRules) -> None:
        """Read all headers.

        Raises:
            InputError: There is no such folder, or it holds too many files.
        """
        index = index_folder(folder, rules.limits)
        self.left_out = index.left_out
        self._studies = index.studies

    def studies(self) -> list[SourceStudy]:
        """Return all studies, those of a patient in the order of their dates."""
        return _in_order(self._studies.values())

    @contextmanager
    def at_hand(self, study: SourceStudy) -> Iterator[SourceStudy]:
        """Give the study as it is."""
        yield study


class ArchiveSource:
    """The site's picture archive. Series are fetched a study at a time, and removed after it.

    Attributes:
        known_as: Returns why a study of this listing was left out before, "" if it was not.
        listing: What the archive listed of the last study, "" where that may not be relied on.
    """

    def __init__(self, archive: "Archive", rules: ImportRules, site_folder: Path) -> None:
        """Take an open archive."""
        self.known_as: Callable[[SourceStudy, str], str] = lambda study, listing: ""
        self.listing = ""
        self.left_out: Counter[str] = Counter()
        self._archive = archive
        self._rules = rules
        self._incoming = site_folder / IMPORT_FOLDER / INCOMING

    def studies(self) -> list[SourceStudy]:
        """Ask for the studies of the rules' days, modalities and descriptions.

        Raises:
            PacsError: The archive does not answer as it should.
        """
        from wardround.client.clinic.pacs.archive import StudyQuery

        rule, found = self._rules.study, {}
        modalities = {c.modality for c in self._rules.channels if c.required} or {""}
        modality = modalities.pop() if len(modalities) == 1 else ""
        for description in rule.description or ("",):
            query = StudyQuery(
                modality=modality,
                description=description,
                date_from=rule.date_from,
                date_to=rule.date_to,
            )
            for one in self._archive.find_studies(query):
                found[one.uid] = SourceStudy(
                    one.uid, one.patient_id, one.accession_number, one.date, one.description
                )
        return _in_order(found.values())

    @contextmanager
    def at_hand(self, study: SourceStudy) -> Iterator[SourceStudy]:
        """Fetch the series of a study that may be a channel, a mask or a report.

        Raises:
            LeftOutError: The archive refuses a series, or sends what is not one.
            PacsAwayError: It cannot be reached.
        """
        shutil.rmtree(self._incoming, ignore_errors=True)
        make_private_folder(self._incoming)
        try:
            expected = self._fetch(study)
            index = index_folder(self._incoming, self._rules.limits)
            self.left_out.update(index.left_out)
            fetched = index.studies.get(study.uid, study)
            for uid, series in fetched.series.items():
                series.expected = expected.get(uid)
            yield fetched
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _fetch(self, study: SourceStudy) -> dict[str, int | None]:
        """Fetch the series of a study, and return how many objects each of them has."""
        from wardround.client.clinic.pacs.archive import PacsAwayError, PacsError

        self.listing = ""
        try:
            found = self._archive.find_series(study.uid)
            wanted = [one for one in found if self._is_wanted(one.modality, one.description)]
            expected = {one.uid: one.objects for one in wanted}
            self.listing = json.dumps(sorted(expected.items()))
            reason = self.known_as(study, self.listing)
            if reason:
                raise LeftOutError(reason)
            if len(found) > len(wanted):
                self.left_out["series of another modality or description"] += len(found) - len(
                    wanted
                )
            for number, listed in enumerate(wanted):
                folder = self._incoming / f"{number:05d}"
                self._archive.fetch_series(study.uid, listed.uid, folder)
        except PacsAwayError:
            raise
        except PacsError:  # of this study alone: too large, or not what it was asked for
            self.listing = ""  # another setting of pacs.toml may let it through
            msg = "the archive does not give a series of it, or more than pacs.toml allows"
            raise LeftOutError(msg) from None
        return expected

    def _is_wanted(self, modality: str, description: str) -> bool:
        if modality in _LABEL_MODALITIES:
            labels = self._rules.labels
            return bool(labels.structured_report if modality == "SR" else labels.masks)
        listed = SourceSeries(
            "", "", "image", modality.upper(), (description, ""), "", None, frozenset(), "", 0
        )
        # A protocol's name may fit where the description does not, so without one all are fetched.
        return any(
            not misfit(listed, rule, by_header=False)
            or (not description and rule.modality in ("", modality))
            for rule in self._rules.channels
        )


def open_source(name: str, rules: ImportRules, site_folder: Path) -> FolderSource | ArchiveSource:
    """Return what a command's SOURCE names: a folder, or "pacs" for the site's archive.

    Raises:
        InputError: There is no such folder, or the archive is not set up.
    """
    if name != "pacs":
        folder = Path(name)
        if folder.resolve().is_relative_to(site_folder.resolve()):
            msg = f"{folder} lies in the site folder: give the folder that the images come from."
            raise InputError(msg)
        return FolderSource(folder, rules)
    from wardround.client.clinic.pacs.archive import open_archive

    return ArchiveSource(open_archive(site_folder), rules, site_folder)


def wanted_studies(
    source: FolderSource | ArchiveSource, rules: ImportRules, left_out: Counter[str]
) -> list[SourceStudy]:
    """Return the studies that the rules look at; the others are counted by reason."""
    wanted = []
    for study in source.studies():
        reason = study_misfit(study, rules.study)
        if reason:
            left_out[reason] += 1
        else:
            wanted.append(study)
    return wanted


def _in_order(studies: Iterable[SourceStudy]) -> list[SourceStudy]:
    return sorted(studies, key=lambda one: (one.patient, one.date, one.uid))
