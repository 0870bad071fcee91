"""Labels and masks of imported studies: from a table, reports, segmentations, structure sets."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from tests.unit.client.clinic.onboarding.made_dicom import SIZE, with_meta
from tests.unit.client.clinic.onboarding.made_import import RULES, rows_of, write_study

from wardround.client.clinic.onboarding.run import import_images


def test_labels_come_from_a_table_and_words_of_its_reports(tmp_path: Path, site: Path) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + '[labels.table]\nfile = "ris.csv"\nby = "accession"\nkey = "Acc"\n'
        + 'columns = { age = "Age" }\n[labels.report]\ntable_column = "Report"\n'
        + 'words = { abnormal = ["les.on", "oedema"], normal = ["unremarkable"] }\n'
    )
    (tmp_path / "ris.csv").write_text(
        "Acc;Age;Report\nACC-1;61;A LESION of 4 mm\nACC-2;50;unremarkable\nACC-9;1;x\n"
    )
    source = tmp_path / "export"
    for number in (1, 2, 3):
        write_study(source, number, patient=f"MRN-{number}00")
    report = import_images(str(source), rules, site)
    assert report.studies == {"no label: not in the table": 1}
    assert {(row["age"], row["label"]) for row in rows_of(site)} == {
        ("61", "abnormal"),
        ("50", "normal"),
    }


def test_a_cell_with_the_patients_identifier_is_no_label(tmp_path: Path, site: Path) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + '[labels.table]\nfile = "ris.csv"\nby = "patient"\nkey = "Id"\n'
        + 'columns = { note = "Note" }\n'
    )
    (tmp_path / "ris.csv").write_text("Id,Note\nMRN-004711,see mrn-004711\n")
    write_study(tmp_path / "export", 1)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {"no label: a cell of the table has an identifier in it": 1}


def test_a_label_comes_from_a_coded_finding_of_a_structured_report(
    tmp_path: Path, site: Path
) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(
        RULES
        + "[labels.structured_report]\n"
        + 'columns = { label = "DCM:121071", volume = "SCT:118565006" }\n'
        + 'values = { "SCT:52988006" = "lesion" }\n'
    )
    write_study(tmp_path / "export", 1)
    report = with_meta(_structured_report())
    report.save_as(tmp_path / "export" / "sr", enforce_file_format=True)
    import_images(str(tmp_path / "export"), rules, site)
    (row,) = rows_of(site)
    assert (row["label"], row["volume"]) == ("lesion", "12.5")


def _code(scheme: str, value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meant"
    return Sequence([item])


def _structured_report() -> Dataset:
    report = Dataset()
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.SOPInstanceUID = generate_uid()
    report.StudyInstanceUID, report.SeriesInstanceUID = "1.2.826.55.1", "1.2.826.55.1.90"
    report.PatientID, report.Modality = "MRN-004711", "SR"
    finding, volume, group = Dataset(), Dataset(), Dataset()
    finding.ValueType, finding.ConceptNameCodeSequence = "CODE", _code("DCM", "121071")
    finding.ConceptCodeSequence = _code("SCT", "52988006")
    volume.ValueType, volume.ConceptNameCodeSequence = "NUM", _code("SCT", "118565006")
    measured = Dataset()
    measured.NumericValue = "12.50"
    volume.MeasuredValueSequence = Sequence([measured])
    group.ValueType, group.ContentSequence = "CONTAINER", Sequence([finding, volume])
    report.ContentSequence = Sequence([group])
    return report


def test_a_segmentation_of_the_series_becomes_the_mask(tmp_path: Path, site: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    rules = tmp_path / "import.toml"
    rules.write_text(RULES + '[labels.masks]\nnames = ["lesion"]\n')
    write_study(tmp_path / "export", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "export" / "1").iterdir())]
    mask = np.zeros((4, SIZE, SIZE), np.uint8)
    mask[1:3, 4:8, 4:8] = 1
    segment = highdicom.seg.SegmentDescription(
        1,
        "lesion",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Lesion,
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    for image in images:
        image.PatientBirthDate, image.StudyID, image.ReferringPhysicianName = "19610203", "", ""
    seg = highdicom.seg.Segmentation(
        images,
        mask,
        highdicom.seg.SegmentationTypeValues.BINARY,
        [segment],
        generate_uid(),
        9,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial 00012345",
    )
    seg.save_as(tmp_path / "export" / "mask")
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {}
    (row,) = rows_of(site)
    written = pydicom.dcmread(site / row["mask"])
    image = pydicom.dcmread(next((site / row["image"]).iterdir()))
    assert written.SegmentSequence[0].SegmentLabel == "lesion"
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    assert written.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert np.array_equal(written.pixel_array, seg.pixel_array)


def test_a_structure_set_keeps_the_names_that_the_rules_ask_for_and_no_others(
    tmp_path: Path, site: Path
) -> None:
    rules = tmp_path / "import.toml"
    rules.write_text(RULES + '[labels.masks]\nnames = ["GTV"]\n')
    write_study(tmp_path / "export", 1)
    image = pydicom.dcmread(next((tmp_path / "export" / "1").iterdir()))
    contours, reference = Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    reference.ReferencedSOPClassUID = image.SOPClassUID
    contours.ContourImageSequence = Sequence([reference])
    contours.ContourData = [1.5, 2, 3, 4, 5, 6, 7, 8, 9]
    roi = Dataset()
    roi.ReferencedROINumber, roi.ContourSequence = 1, Sequence([contours])
    plan = Dataset()
    plan.SOPClassUID, plan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", generate_uid()
    plan.StudyInstanceUID, plan.SeriesInstanceUID = "1.2.826.55.1", "1.2.826.55.1.91"
    plan.PatientID, plan.Modality = "MRN-004711", "RTSTRUCT"
    names = [Dataset(), Dataset()]
    names[0].ROINumber, names[0].ROIName = 1, "GTV"
    names[1].ROINumber, names[1].ROIName = 2, "drawn by Dr. Weber"
    plan.StructureSetROISequence, plan.ROIContourSequence = Sequence(names), Sequence([roi])
    with_meta(plan).save_as(tmp_path / "export" / "plan", enforce_file_format=True)
    report = import_images(str(tmp_path / "export"), rules, site)
    assert report.studies == {}
    (row,) = rows_of(site)
    written = pydicom.dcmread(site / row["mask"])
    assert [one.ROIName for one in written.StructureSetROISequence] == ["GTV", "REMOVED"]
    contour = written.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourData[0] == 1.5
    used = {pydicom.dcmread(path).SOPInstanceUID for path in (site / row["image"]).iterdir()}
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in used
