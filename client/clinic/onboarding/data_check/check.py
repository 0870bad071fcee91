"""The data check of a site: every examination is looked at once; the report stays at the site."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from wardround.client.clinic.onboarding.data_check import boxes, images, tables
from wardround.client.clinic.onboarding.data_check.duplicates import find_duplicates
from wardround.client.clinic.onboarding.data_check.findings import DataReport
from wardround.client.clinic.onboarding.data_check.labels import check_labels
from wardround.client.clinic.onboarding.data_check.looks import look_at_all
from wardround.client.clinic.onboarding.data_check.outcomes import (
    check_outcomes,
    without_numbers,
)
from wardround.client.clinic.onboarding.data_check.page import page_of
from wardround.client.clinic.onboarding.data_check.subjects import subjects_of
from wardround.client.data.reading.array_files import forget_arrays
from wardround.client.site.folder import Site
from wardround.common.errors import RunError
from wardround.common.files.account import wrong_account
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.study.study import Study

CHECKS_FOLDER = "checks"
Progress = Callable[[int, int], None]


def check_data(site: Site, study: Study | None, progress: Progress) -> DataReport:
    """Return what one look at a site's data finds.

    Args:
        study: Says which columns count, and the classes; None takes the manifest as it is.
        progress: Is told how many examinations were looked at, of how many.

    Raises:
        DataError: The manifest cannot be read.
    """
    subjects, findings = subjects_of(site, study)
    if study is None:
        subjects, numbers = without_numbers(subjects)
        findings += numbers
    else:
        findings += check_outcomes(subjects, study)
    dimensions = study.data.dimensions if study is not None else None
    has_boxes = study is not None and study.task.column == "boxes"
    count = boxes.counter_of(site, study) if study is not None and has_boxes else None
    looks = look_at_all(subjects, dimensions, progress, count)
    forget_arrays()
    looked = list(zip(subjects, looks, strict=True))
    with_images = any(subject.images or subject.mask for subject in subjects)
    findings += tables.check_classes(subjects, study)
    if with_images:
        whole = [(subject, look) for subject, look in looked if not look.fault]
        optional = () if study is None else study.data.optional_channels
        findings += images.check_files(looked, optional)
        findings += find_duplicates(subjects, looks)
        findings += images.check_space(whole, study)
        findings += images.check_intensities(whole)
        findings += images.check_masks(whole, study)
        findings += boxes.check_boxes(whole)
    findings += tables.check_missing(subjects, study)
    findings += tables.check_covariates(subjects)
    hint, suspects = check_labels(looked, study)
    counts = [*tables.count_classes(subjects), *tables.count_looks(looks)]
    counts += boxes.count_boxes(looked, study)
    counts += tables.count_missing(subjects, study)
    examinations, patients = tables.how_many(subjects)
    return DataReport(
        site=site.name,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        study="" if study is None else study.name,
        digest="" if study is None else study.digest,
        examinations=examinations,
        patients=patients,
        findings=(*findings, *hint),
        counts=tuple(counts),
        suspects=suspects,
    )


def write_report(report: DataReport, site: Site) -> tuple[Path, Path]:
    """Write the page and the JSON of a report into the site folder, for its owner alone.

    Returns:
        The page, and the JSON beside it.

    Raises:
        RunError: They cannot be written.
    """
    folder = site.folder / CHECKS_FOLDER
    name = report.study or "manifest"
    page, data = folder / f"{name}.html", folder / f"{name}.json"
    try:
        make_private_folder(folder)
        replace_file(page, page_of(report))
        replace_file(data, json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        msg = f"cannot write into {folder} ({error.strerror}): {wrong_account(site.folder)}"
        raise RunError(msg) from None
    return page, data
