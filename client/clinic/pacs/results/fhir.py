"""A result as FHIR R4B resources: ImagingStudy, DiagnosticReport (preliminary) and Device.

``fhir.resources`` refuses keys that FHIR does not know, but takes any word as a status: what has a
fixed list of words is checked here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wardround.client.clinic.pacs.archive import PacsError, value_of
from wardround.client.clinic.pacs.identity import MANUFACTURER, NOT_FOR_DIAGNOSIS, Algorithm
from wardround.client.clinic.pacs.results.segmentation import names_for
from wardround.client.clinic.pacs.source import Source
from wardround.common.errors import InputError, install_command

if TYPE_CHECKING:
    from pydicom import Dataset

# Of the value sets that FHIR R4B requires (their binding strength is "required").
STATUSES = {
    "ImagingStudy": ("registered", "available", "cancelled", "entered-in-error", "unknown"),
    "DiagnosticReport": (
        "registered",
        "partial",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "appended",
        "cancelled",
        "entered-in-error",
        "unknown",
    ),
    "Device": ("active", "inactive", "entered-in-error", "unknown"),
}
_STUDY_CODE = {
    "system": "http://loinc.org",
    "code": "18748-4",
    "display": "Diagnostic imaging study",
}
_UID_SYSTEM = "urn:dicom:uid"


@dataclass(frozen=True, slots=True)
class FhirResult:
    """The three resources, as JSON text each. They name the patient: they stay in the hospital."""

    imaging_study: str
    report: str
    device: str


def make_fhir(
    source: Source, objects: Sequence["Dataset"], sentences: Sequence[str], algorithm: Algorithm
) -> FhirResult:
    """Return a result as FHIR resources.

    Args:
        objects: The DICOM objects of the result.
        sentences: What was found, in words.

    Raises:
        PacsError: The images lack what a resource needs.
        InputError: fhir.resources is not installed.
    """
    import_fhir()
    from fhir.resources.R4B.device import Device
    from fhir.resources.R4B.diagnosticreport import DiagnosticReport
    from fhir.resources.R4B.imagingstudy import ImagingStudy

    names = names_for(source, algorithm)
    parts = {
        ImagingStudy: _imaging_study(source, objects, names.device),
        DiagnosticReport: _report(source, sentences, names.report, algorithm),
        Device: _device(names.device, algorithm),
    }
    written: dict[str, str] = {}
    for kind, content in parts.items():
        check_status(str(content["resourceType"]), str(content["status"]))
        try:
            written[kind.__name__] = str(kind.model_validate(content).model_dump_json(indent=2))
        except ValueError as error:
            msg = f"a FHIR resource cannot be written ({type(error).__name__}): values of the study"
            raise PacsError(msg) from None
    return FhirResult(written["ImagingStudy"], written["DiagnosticReport"], written["Device"])


def import_fhir() -> None:
    """Import it, or say how to get it.

    Raises:
        InputError: It is not installed.
    """
    try:
        import fhir.resources.R4B  # noqa: F401 # slow, so only here
    except ImportError:
        msg = f"fhir.resources is missing. Install it: {install_command('pacs')}"
        raise InputError(msg) from None


def check_status(resource: str, status: str) -> None:
    """Make sure that a status is one that FHIR knows.

    Raises:
        PacsError: It is not.
    """
    if status not in STATUSES[resource]:
        msg = f"{status!r} is no status of a {resource} in FHIR R4B."
        raise PacsError(msg)


def _imaging_study(source: Source, objects: Sequence["Dataset"], device: str) -> dict[str, Any]:
    series: dict[str, list[Dataset]] = {}
    for one in (*source.datasets, *objects):
        series.setdefault(str(one.SeriesInstanceUID), []).append(one)
    return {
        "resourceType": "ImagingStudy",
        "status": "available",
        "identifier": [{"system": _UID_SYSTEM, "value": f"urn:oid:{source.study_uid}"}],
        "subject": _subject(source),
        "numberOfSeries": len(series),
        "numberOfInstances": sum(map(len, series.values())),
        "series": [
            _series(uid, held) | ({} if uid == source.series_uid else _made_by(device))
            for uid, held in series.items()
        ],
    }


def _series(uid: str, held: Sequence["Dataset"]) -> dict[str, Any]:
    modality = value_of(held[0], "Modality") or "OT"
    system = "http://dicom.nema.org/resources/ontology/DCM"
    return {
        "uid": uid,
        "modality": {"system": system, "code": modality},
        "numberOfInstances": len(held),
        "instance": [
            {
                "uid": str(one.SOPInstanceUID),
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one.SOPClassUID}"},
            }
            for one in held
        ],
    }


def _made_by(device: str) -> dict[str, Any]:
    identifier = {"system": _UID_SYSTEM, "value": f"urn:oid:{device}"}
    return {"performer": [{"actor": {"type": "Device", "identifier": identifier}}]}


def _report(
    source: Source, sentences: Sequence[str], uid: str, algorithm: Algorithm
) -> dict[str, Any]:
    maker = f"By {algorithm.label}, wardround {algorithm.version}, model {algorithm.digest}."
    missing = [f"{algorithm.missing_words}."] if algorithm.missing else []
    conclusion = " ".join([f"{NOT_FOR_DIAGNOSIS}.", *sentences, *missing, maker])
    return {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "identifier": [{"system": _UID_SYSTEM, "value": f"urn:oid:{uid}"}],
        "code": {"coding": [_STUDY_CODE]},
        "subject": _subject(source),
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "imagingStudy": [
            {"identifier": {"system": _UID_SYSTEM, "value": f"urn:oid:{source.study_uid}"}}
        ],
        "conclusion": conclusion,
    }


def _device(uid: str, algorithm: Algorithm) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "status": "active",
        "identifier": [{"system": _UID_SYSTEM, "value": f"urn:oid:{uid}"}],
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": algorithm.label, "type": "model-name"}],
        "serialNumber": algorithm.digest,
        "version": [{"value": algorithm.version}],
        "note": [{"text": f"{NOT_FOR_DIAGNOSIS}."}],
    }


def _subject(source: Source) -> dict[str, Any]:
    return {"identifier": {"value": value_of(source.datasets[0], "PatientID") or "unknown"}}
