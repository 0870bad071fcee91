"""A whole import: from a folder or the archive to images, manifest, journal and audit entry."""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from pydicom.dataset import Dataset

from wardround.client.clinic.onboarding.archive_images.folder import quiet_pydicom, read_whole
from wardround.client.clinic.onboarding.archive_images.series import SourceSeries, SourceStudy
from wardround.client.clinic.onboarding.archive_images.sources import (
    INCOMING,
    ArchiveSource,
    FolderSource,
    open_source,
    wanted_studies,
)
from wardround.client.clinic.onboarding.choice import LeftOutError, choose_series
from wardround.client.clinic.onboarding.deidentification.burned_in_text import (
    TextCheck,
    text_finder,
)
from wardround.client.clinic.onboarding.deidentification.keyed_maps import (
    IMPORT_FOLDER,
    KeyedMaps,
    open_secret,
    passing_secret,
)
from wardround.client.clinic.onboarding.deidentification.profile import require_table
from wardround.client.clinic.onboarding.imported_manifest import (
    append_waiting,
    check_manifest,
    manifest_columns,
)
from wardround.client.clinic.onboarding.journal import Journal, open_journal
from wardround.client.clinic.onboarding.labels.joined import NoLabelError, open_label_sources
from wardround.client.clinic.onboarding.rules import ImportRules, read_rules
from wardround.client.clinic.onboarding.study_import import StudyImporter
from wardround.client.site.folder import AUDIT_FOLDER, Site, open_site
from wardround.common.errors import InputError, RunError, WardroundError, describe_defect
from wardround.common.files.atomic import make_private_folder
from wardround.common.files.lock import held_alone

logger = logging.getLogger(__name__)
_GIGABYTE = 2**30
_ROWS_SHOWN = 5
_MANIFEST_SECONDS = 10.0  # between two writings of the manifest
Progress = Callable[[int, int], None]
"""Is told how many of how many studies are done."""


@dataclass
class ImportReport:
    """What an import did, in counts: no patient and no file stands in it.

    Attributes:
        found: Studies that the rules look at.
        already: Of these, imported by an earlier run.
        imported: Studies now.
        masked: Images in which text was masked.
        searched: Images whose pixels were looked at for text.
        studies: Studies that were left out, by reason; likewise ``series`` and ``files``.
        columns: Of the manifest.
        rows: The first rows of a dry run: pseudonyms only.
    """

    found: int = 0
    already: int = 0
    imported: int = 0
    patients: set[str] = field(default_factory=set, repr=False)
    masked: int = 0
    searched: int = 0
    bytes: int = 0
    studies: Counter[str] = field(default_factory=Counter)
    series: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    columns: tuple[str, ...] = ()
    rows: list[dict[str, str]] = field(default_factory=list, repr=False)

    @property
    def counts(self) -> dict[str, object]:
        """Everything that may be shown and logged."""
        return {
            "found": self.found,
            "already": self.already,
            "imported": self.imported,
            "patients": len(self.patients),
            "looked_at_for_text": self.searched,
            "masked": self.masked,
            "studies_left_out": dict(self.studies),
            "series_left_out": dict(self.series),
            "files_left_out": dict(self.files),
        }


def import_images(
    source: str,
    rules_file: Path,
    site_folder: Path,
    dry_run: bool = False,
    progress: Progress = lambda done, of: None,
) -> ImportReport:
    """Import what the rules ask for into a site folder.

    It may be stopped at any moment, by kill -9 too, and run again: what is there stays, what is
    missing is added, nothing comes twice.

    Args:
        source: A folder, or "pacs".
        dry_run: Only say what would be done; nothing is written.

    Raises:
        InputError: The rules, the source or the site cannot be used.
        RunError: It could not go on; what was imported stays.
    """
    site, rules = open_site(site_folder), read_rules(rules_file)
    quiet_pydicom()
    require_table()
    text = _text_check(rules)
    if dry_run:
        maps = passing_secret(site.folder)
        importer = _importer(site, rules, maps, text, rules_file)
        return _plan(importer, open_source(source, rules, site.folder))
    with _alone(site.folder):
        maps = open_secret(site.folder)
        importer = _importer(site, rules, maps, text, rules_file)
        append_waiting(site.manifest_path, manifest_columns(rules), importer.journal)
        report = _run(importer, open_source(source, rules, site.folder), progress)
        _write_down(site, report, importer.journal)
    return report


def _importer(
    site: Site, rules: ImportRules, maps: KeyedMaps, text: TextCheck | None, rules_file: Path
) -> StudyImporter:
    check_manifest(site.manifest_path, manifest_columns(rules))
    labels = open_label_sources(rules, rules_file.resolve().parent)
    return StudyImporter(site, rules, maps, open_journal(site.folder), labels, text)


def _text_check(rules: ImportRules) -> TextCheck | None:
    policy = rules.deidentification.burned_in_text
    return None if policy == "unchecked" else TextCheck(text_finder(), policy == "mask")


@contextmanager
def _alone(site_folder: Path) -> Iterator[None]:
    folder = site_folder / IMPORT_FOLDER
    make_private_folder(folder)
    busy = InputError(f"another import into {site_folder} is running: wait for it.")
    with held_alone(folder / "lock", busy):
        shutil.rmtree(folder / INCOMING, ignore_errors=True)  # of a run that was killed
        yield


def _run(
    importer: StudyImporter, source: FolderSource | ArchiveSource, progress: Progress
) -> ImportReport:
    report, columns = ImportReport(), manifest_columns(importer.rules)
    if isinstance(source, ArchiveSource):
        source.known_as = partial(_left_out_before, importer)
    studies = _new_studies(importer, source, report)
    _check_room(importer, _bytes_wanted(studies, importer.rules))
    written = time.monotonic()
    try:
        for done, study in enumerate(studies):
            progress(done, len(studies))
            _import(importer, source, study, report)
            if time.monotonic() - written > _MANIFEST_SECONDS:
                append_waiting(importer.site.manifest_path, columns, importer.journal)
                written = time.monotonic()
    except OSError as error:
        msg = (
            f"cannot write below {importer.site.folder} ({error.strerror}): make room, then again."
        )
        raise RunError(msg) from None
    finally:
        append_waiting(importer.site.manifest_path, columns, importer.journal)
    progress(len(studies), len(studies))
    report.files.update(source.left_out)
    report.masked, report.searched = importer.masked, importer.searched
    report.columns = columns
    return report


def _import(
    importer: StudyImporter,
    source: FolderSource | ArchiveSource,
    study: SourceStudy,
    report: ImportReport,
) -> None:
    try:
        with source.at_hand(study) as at_hand:
            if at_hand.is_mixed:
                msg = "it names two patients"
                raise LeftOutError(msg)
            channels = choose_series(at_hand, importer.rules, report.series)
            if isinstance(channels, str):
                raise LeftOutError(channels)
            size = sum(series.size for series in channels.values())
            _check_room(importer, size)
            cells = _cells(importer, at_hand, channels)
            mask = _mask(importer, at_hand, channels)
            imported = importer.import_study(at_hand, channels, cells, mask)
    except LeftOutError as error:
        report.studies[str(error)] += 1
        _remember(importer, source, study, str(error))
        return
    except (OSError, WardroundError):
        raise
    except Exception as error:  # a foreign file may break any reader; its text quotes the file
        logger.warning("a study is left out: %s", describe_defect(error))
        report.studies["a file of it breaks the reader"] += 1
        return
    report.imported += 1
    report.bytes += size
    report.patients.add(imported.patient)


def _remember(
    importer: StudyImporter, source: FolderSource | ArchiveSource, study: SourceStudy, reason: str
) -> None:
    """Have a study of an archive not fetched again until the archive or the rules say otherwise."""
    if not isinstance(source, ArchiveSource) or not source.listing:
        return
    if not source.known_as(study, source.listing):
        listing = _listing_digest(importer, source.listing)
        importer.journal.leave_out(importer.digest_of(study), listing, reason)


def _listing_digest(importer: StudyImporter, listing: str) -> str:
    rules, labels = importer.rules.model_dump_json(), importer.labels.table
    return importer.maps.digest(listing, rules, repr(labels.rows if labels else ""))


def _left_out_before(importer: StudyImporter, study: SourceStudy, listing: str) -> str:
    known, reason = importer.journal.left_out.get(importer.digest_of(study), ("", ""))
    return reason if known and known == _listing_digest(importer, listing) else ""


def _plan(importer: StudyImporter, source: FolderSource | ArchiveSource) -> ImportReport:
    """Say what an import would do, as far as headers tell."""
    report = ImportReport(columns=manifest_columns(importer.rules))
    for study in _new_studies(importer, source, report):
        if isinstance(source, ArchiveSource):
            report.imported += 1  # what its series are is known once they are fetched
            report.patients.add(importer.maps.pseudonym(study.patient))
            continue
        channels = choose_series(study, importer.rules, report.series)
        if isinstance(channels, str):
            report.studies[channels] += 1
            continue
        try:
            cells = _cells(importer, study, channels)
        except LeftOutError as error:
            report.studies[str(error)] += 1
            continue
        planned = importer.planned(study, list(channels), cells)
        importer.journal.note(planned)  # so that the days of the next study count from here
        report.imported += 1
        report.bytes += sum(series.size for series in channels.values())
        report.patients.add(planned.patient)
        if len(report.rows) < _ROWS_SHOWN:
            report.rows.append(planned.cells)
    report.files.update(source.left_out)
    return report


def _new_studies(
    importer: StudyImporter, source: FolderSource | ArchiveSource, report: ImportReport
) -> list[SourceStudy]:
    wanted = wanted_studies(source, importer.rules, report.studies)
    if len(wanted) > importer.rules.limits.studies:
        msg = (
            f"{len(wanted)} studies are more than limits.studies = "
            f"{importer.rules.limits.studies}: raise it, or narrow [study]."
        )
        raise InputError(msg)
    new = [one for one in wanted if importer.digest_of(one) not in importer.journal.studies]
    report.found, report.already = len(wanted), len(wanted) - len(new)
    return new


def _cells(
    importer: StudyImporter, study: SourceStudy, channels: dict[str, SourceSeries]
) -> dict[str, str]:
    first = next(iter(channels.values())).files[0]
    try:
        header = read_whole(first.path)
    except Exception:  # pydicom raises of every kind, and quotes the file's values
        msg = "a file is damaged"
        raise LeftOutError(msg) from None
    try:
        return importer.labels.cells(study, header)
    except NoLabelError as error:
        _leave_out_unless_kept(importer, error)
        return {}


def _mask(
    importer: StudyImporter, study: SourceStudy, channels: dict[str, SourceSeries]
) -> Dataset | None:
    try:
        return importer.labels.mask(study, channels)
    except NoLabelError as error:
        _leave_out_unless_kept(importer, error)
        return None


def _leave_out_unless_kept(importer: StudyImporter, error: NoLabelError) -> None:
    if importer.rules.labels.missing == "leave out":
        msg = f"no label: {error}"
        raise LeftOutError(msg) from None


def _bytes_wanted(studies: list[SourceStudy], rules: ImportRules) -> int:
    """Return how much the chosen series take; of an archive it is not known before."""
    chosen = [choose_series(study, rules, Counter()) for study in studies if study.series]
    return sum(one.size for found in chosen if isinstance(found, dict) for one in found.values())


def _check_room(importer: StudyImporter, wanted: int) -> None:
    free = shutil.disk_usage(importer.site.folder).free
    kept = importer.rules.limits.free_gigabytes * _GIGABYTE
    if free - wanted < kept:
        msg = (
            f"the disk of {importer.site.folder} has {free / _GIGABYTE:.1f} GB left; images take "
            f"{wanted / _GIGABYTE:.1f} GB beside limits.free_gigabytes = "
            f"{importer.rules.limits.free_gigabytes:g}: make room, then import again."
        )
        raise RunError(msg)


def _write_down(site: Site, report: ImportReport, journal: Journal) -> None:
    """Sign the counts into the audit log; nothing has left the site."""
    from wardround.common.security.audit_log import AuditLog, Event
    from wardround.common.security.signing_key import open_key

    content = json.dumps(report.counts, sort_keys=True).encode()
    said = f"allow: {report.imported} examinations imported, {len(journal.studies)} in all"
    event = Event(kind="import", verdict=said, sha256=sha256(content).hexdigest())
    AuditLog(site.folder / AUDIT_FOLDER, open_key(site.key_folder)).append(event)
