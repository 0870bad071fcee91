"""A folder of studies to import, and the rules of a hospital that imports them."""

import csv
from pathlib import Path

from tests.unit.client.clinic.onboarding.made_dicom import write_series

RULES = """
[[channels]]
modality = "MR"
description = ["*t1*"]

[deidentification]
burned_in_text = "unchecked"
"""


def write_study(folder: Path, number: int, patient: str = "MRN-004711", **values: object) -> None:
    study = f"1.2.826.55.{number}"
    said = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "PatientID": patient,
        "AccessionNumber": f"ACC-{number}",
        **values,
    }
    write_series(folder / str(number), **said)


def rows_of(site: Path) -> list[dict[str, str]]:
    with (site / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
