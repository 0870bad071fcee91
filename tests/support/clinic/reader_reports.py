"""Reports as a reader's viewer stores them: small, verified, of one study."""

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from wardround.client.clinic.pacs.results.codes import own_term

_COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"


def drawn_report(
    image: pydicom.Dataset, *classes: str, flag: str = "VERIFIED", observer: str = "Reader^Ada"
) -> pydicom.Dataset:
    """Return a report that says classes of one image's study.

    Args:
        flag: VERIFIED, or UNVERIFIED as a program's.
        observer: Whom it names as who verified it.
    """
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = _COMPREHENSIVE_SR, generate_uid()
    made.preamble, made.file_meta = bytes(128), FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.StudyInstanceUID, made.SeriesInstanceUID = image.StudyInstanceUID, generate_uid()
    made.Modality, made.PatientID, made.VerificationFlag = "SR", image.PatientID, flag
    verifier = pydicom.Dataset()
    verifier.VerifyingObserverName = observer
    made.VerifyingObserverSequence = [verifier]
    evidence = pydicom.Dataset()
    evidence.ReferencedSOPInstanceUID = image.SOPInstanceUID
    made.CurrentRequestedProcedureEvidenceSequence = [evidence]
    made.ContentSequence = [_said(name) for name in classes]
    return made


def _said(name: str) -> pydicom.Dataset:
    item, code, term = pydicom.Dataset(), pydicom.Dataset(), own_term(name)
    code.CodeValue, code.CodingSchemeDesignator = term.value, term.scheme
    code.CodeMeaning = term.meaning
    item.ValueType, item.ConceptCodeSequence = "CODE", [code]
    return item
