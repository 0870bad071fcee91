import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_allclose

from wardround.client.data.manifest.examination import BoxCell, Location
from wardround.client.data.reading.boxes.reader import has_box_reader, parse_cell, read_boxes
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.common.study.sections.data import DataSection

PICTURE = Image(np.zeros((1, 30, 40), np.float32))  # 30 rows, 40 columns
VOLUME = Image(np.zeros((1, 20, 30, 40), np.float32))
FLAT = DataSection(classes=("red cell", "white cell"), size=(16, 16))
DEEP = DataSection(classes=("nodule", "cyst"), dimensions=3, size=(16, 16, 16))
SOURCE = Location(Path("/site/images/p1.png"))


def read(cell, image=PICTURE, data=FLAT, source=SOURCE, root=Path()):
    return read_boxes(
        parse_cell(str(cell), data.dimensions, lambda name: root / name), image, source, data
    )


def voc(name="red cell", sides=(3, 5, 13, 9), head="", size=(40, 30)):
    tags = "".join(
        f"<{tag}>{side}</{tag}>"
        for tag, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
    )
    return (
        f"<?xml version='1.0'?>{head}<annotation><size><width>{size[0]}</width><height>{size[1]}"
        f"</height></size><object><name>{name}</name><bndbox>{tags}</bndbox></object></annotation>"
    )


def coco(**changes):
    whole = {
        "images": [
            {"id": 7, "file_name": "images/p1.png", "width": 40, "height": 30},
            {"id": 8, "file_name": "images/p2.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 3, "name": "red cell"}, {"id": 4, "name": "white cell"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [3, 5, 10, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 2.5, 1], "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 4, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 4, "image_id": 8, "category_id": 3, "bbox": [1, 1, 1, 1]},
        ],
    }
    return json.dumps(whole | changes)


def test_a_cell_says_x_before_y_and_an_image_has_rows_before_columns():
    found = read("red cell 3 5 13 9; white cell 0 0 2.5 1")

    assert found.names == ("red cell", "white cell")
    assert_allclose(found.corners, [[5, 3, 9, 13], [0, 0, 1, 2.5]])


def test_a_cell_of_a_volume_has_its_axes_in_their_own_order():
    found = read("nodule 1 2 3 4 6 8", VOLUME, DEEP)

    assert_allclose(found.corners, [[1, 2, 3, 4, 6, 8]])


@pytest.mark.parametrize("text", ["", "  ", "none", "None"])
def test_a_cell_can_say_that_there_is_no_box(text):
    found = read(text)

    assert found.names == ()
    assert found.corners.shape == (0, 4)


@pytest.mark.parametrize("text", ["red cell 1 2 3", "red cell 1 2 3 4; white cell 1 2", "1 2 3 4"])
def test_a_box_of_too_few_numbers_is_refused(text):
    with pytest.raises(UnreadableError, match="not a class and 4 numbers"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "class,x0,y0,x1,y1\nred cell,3,5,13,9\n",
        "x1;y1;x2;y2;label\n3;5;13;9;red cell\n",
        "filename,xmin,ymin,xmax,ymax,cell_type\np1.png,3,5,13,9,red cell\np2.png,0,0,1,1,x\n",
        "image\tcategory\tx\ty\twidth\theight\nimages/p1\tred cell\t3\t5\t10\t4\n",
        "class;x0;y0;x1;y1\nred cell;3,0;5;13,00;9\n",
        "class,x0,y0,x1,y1,,\nred cell,3,5,13,9,,\n",
    ],
)
def test_a_table_names_its_columns(tmp_path, text):
    (tmp_path / "boxes.csv").write_text(text)

    found = read(tmp_path / "boxes.csv")

    assert found.names == ("red cell",)
    assert_allclose(found.corners, [[5, 3, 9, 13]])


def test_a_table_of_a_volume_has_six_columns(tmp_path):
    (tmp_path / "b.csv").write_text("class,x0,y0,x1,y1,z0,z1\nnodule,1,2,4,6,3,8\n")

    assert_allclose(read(tmp_path / "b.csv", VOLUME, DEEP).corners, [[1, 2, 3, 4, 6, 8]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("red cell,3,5,13,9\n", "names no columns class"),
        ("", "names no columns class"),
        ("class,x0,y0,x1,y1\nred cell,3,five,13,9\n", "row 2 holds a corner that is no number"),
        ("class,x0,y0,x1,y1\nred cell,3,nan,13,9\n", "row 2 holds a corner that is no number"),
        ("class,x0,y0,x1,y1\n" + "red cell,3,4,13,9\n" * 1001, "1001 boxes for one image"),
        ("class,x0,y0,x1,y1\nred cell,3,1e9,13,9\n", "is no number up to"),
        ("class,x0,y0,x1,y1\nred cell,3,5,5,13,9\n", "row 2 has more cells than its first row"),
        ("class,x0,y0,x1,y1,X0\nred cell,3,5,13,9,4\n", "two columns 'x0'"),
        ("class;x0;y0;x1;y1\nred cell;1.234,5;5;13;9\n", "row 2 holds a corner that is no number"),
        ('class,x0,y0,x1,y1\nred cell,"3,5",5,13,9\n', "row 2 holds a corner that is no num"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, reason):
    (tmp_path / "boxes.csv").write_text(text)

    with pytest.raises(UnreadableError, match=reason):
        read(tmp_path / "boxes.csv")


def test_pascal_voc_has_edges_of_boxes_and_the_size_of_its_image(tmp_path):
    (tmp_path / "p1.xml").write_text(voc())

    found = read(tmp_path / "p1.xml")

    assert found.names == ("red cell",)
    assert_allclose(found.corners, [[5, 3, 9, 13]])
    assert found.size == (30, 40)


BOMB = (
    "<!DOCTYPE annotation [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
)
OUTSIDE = "<!DOCTYPE annotation [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"


@pytest.mark.parametrize(
    "content",
    [
        voc("&b;", head=BOMB),
        voc("&a;", head=OUTSIDE),
        voc(head="<!DOCTYPE annotation SYSTEM 'http://127.0.0.1/x.dtd'>"),
        voc("&b;", head=BOMB).replace("<?xml version='1.0'?>", "").encode("utf-16"),
    ],
)
def test_xml_with_a_document_type_or_entities_is_refused_before_it_is_expanded(tmp_path, content):
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "p1.xml").write_bytes(raw)

    with pytest.raises(UnreadableError, match="declares a document type"):
        read(tmp_path / "p1.xml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation><object></annotation>", "no whole XML file"),
        ("<notes/>", "no annotation of Pascal VOC"),
        ("<annotation><object><name>a</name></object></annotation>", "lacks a number"),
        (voc(sides=(1, "x", 3, 4)), "lacks a number"),
        ("<annotation>" + "<a>" * 100 + "</a>" * 100 + "</annotation>", "too many elements"),
    ],
)
def test_xml_that_is_no_annotation_says_why(tmp_path, content, reason):
    (tmp_path / "p1.xml").write_text(content)

    with pytest.raises(UnreadableError, match=reason):
        read(tmp_path / "p1.xml")


def test_coco_finds_an_image_by_the_end_of_its_path_and_passes_over_crowds(tmp_path):
    (tmp_path / "all.json").write_text(coco())

    found = read(tmp_path / "all.json")

    assert found.names == ("red cell", "white cell")
    assert_allclose(found.corners, [[5, 3, 9, 13], [0, 0, 1, 2.5]])
    assert (found.size, found.passed_over) == ((30, 40), 1)


def test_coco_finds_an_image_by_its_number(tmp_path):
    (tmp_path / "all.json").write_text(coco())

    found = read(f"{tmp_path}/all.json#8")

    assert_allclose(found.corners, [[1, 1, 2, 2]])


def test_an_image_of_coco_without_annotations_has_no_box(tmp_path):
    (tmp_path / "all.json").write_text(coco(annotations=[]))

    assert read(tmp_path / "all.json").names == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (coco(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b"}]), "no image"),
        (coco(images=[{"id": 1, "file_name": "p1.png"}] * 2), "2 images of this name"),
        (coco(categories=[]), "stands in no category"),
        (coco(annotations=[{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]), "no COCO file"),
        ("[" * 100_000, "no COCO file"),
        ("{}", "no COCO file"),
        (coco().replace("2.5", "NaN"), "no COCO file"),
        (coco().replace("2.5", "true"), "no COCO file"),
        (coco().replace('"id": 4, "name"', '"id": 3, "name"'), "id that stands twice"),
        (coco().replace('"image_id": 8', '"image_id": 9'), "image_id that stands in no image"),
    ],
)
def test_json_that_is_no_coco_file_says_why(tmp_path, content, reason):
    (tmp_path / "all.json").write_text(content)

    with pytest.raises(UnreadableError, match=reason):
        read(tmp_path / "all.json")


@pytest.mark.parametrize("size", ["null", "0"])
def test_a_size_that_coco_does_not_say_is_no_size(tmp_path, size):
    text = coco().replace('"width": 40', f'"width": {size}').replace('"height": 30', '"height": 0')
    (tmp_path / "all.json").write_text(text)

    found = read(tmp_path / "all.json")

    assert found.size is None
    assert found.names == ("red cell", "white cell")


@pytest.mark.parametrize("name", ["b.json", "b.xml"])
def test_files_of_pictures_are_refused_for_volumes(tmp_path, name):
    (tmp_path / name).write_text(voc() if name.endswith("xml") else coco())

    with pytest.raises(UnreadableError, match="the study is of volumes"):
        read(tmp_path / name, VOLUME, DEEP)


def test_components_of_a_mask_become_boxes(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[2:5, 7:9] = 1
    mask[5, 9] = 1  # meets the first at a corner: one thing
    mask[20:22, 30:40] = 1
    mask[10:12, 1:4] = 2
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")

    found = read(tmp_path / "mask.png")

    assert found.names == ("red cell", "red cell", "white cell")
    assert_allclose(found.corners, [[2, 7, 6, 10], [20, 30, 22, 40], [10, 1, 12, 4]])


def test_white_of_a_mask_is_the_only_class(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[2:5, 7:9] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")

    found = read(tmp_path / "mask.png", data=DataSection(classes=("cell",), size=(16, 16)))

    assert found.names == ("cell",)


def test_a_mask_of_noise_is_refused(tmp_path):
    mask = np.zeros((100, 100), np.uint8)
    mask[::2, ::2] = 1
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")

    with pytest.raises(UnreadableError, match="more than 1000 pieces"):
        read(tmp_path / "mask.png", Image(np.zeros((1, 100, 100), np.float32)))


def test_a_volume_mask_is_brought_onto_the_grid_of_its_image(tmp_path):
    import nibabel

    mask = np.zeros((20, 30, 40), np.uint8)
    mask[1:3, 5:9, 10:20] = 1
    nibabel.Nifti1Image(mask, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "m.nii.gz")
    turned = np.diag([-2.0, 2, 2, 1])  # the image counts x the other way
    turned[0, 3] = 38
    image = Image(VOLUME.array, (2.0, 2.0, 2.0), turned)

    found = read(tmp_path / "m.nii.gz", image, DEEP)

    assert found.names == ("nodule",)
    assert_allclose(found.corners, [[17, 5, 10, 19, 9, 20]])


def test_numbers_of_pixels_are_refused_for_a_slice_that_was_turned_upright():
    image = Image(PICTURE.array, is_turned=True)

    with pytest.raises(UnreadableError, match="name a mask"):
        read("red cell 3 5 13 9", image)
    assert read("none", image).names == ()


def test_a_missing_file_and_a_damaged_one_are_faults_in_words(tmp_path):
    (tmp_path / "m.png").write_bytes(b"no picture")
    for name, reason in (("gone.json", "missing"), ("m.png", "damaged")):
        with pytest.raises(UnreadableError, match=reason):
            read(tmp_path / name)


def test_a_format_is_known_by_its_name():
    assert all(has_box_reader(Path(name)) for name in ("a.json", "a.XML", "a.csv", "a.png"))
    assert not has_box_reader(Path("a.docx"))
    assert parse_cell("a.json#3", 2, Path) == BoxCell("", Location(Path("a.json"), None, 3))


def region(points, kind="POLYLINE", finding="nodule", flat_of=None):
    """Return a measurement group of one region, as TID 1500 nests it."""
    from pydicom.dataset import Dataset

    def item(value_type, code, meaning, **more):
        one = Dataset()
        one.ValueType = value_type
        named = Dataset()
        named.CodeValue, named.CodingSchemeDesignator, named.CodeMeaning = code, "DCM", meaning
        one.ConceptNameCodeSequence = [named]
        for key, value in more.items():
            setattr(one, key, value)
        return one

    said = Dataset()
    said.CodeValue, said.CodingSchemeDesignator, said.CodeMeaning = "1", "99X", finding
    what = item("CODE", "121071", "Finding", ConceptCodeSequence=[said])
    shape = item(
        "SCOORD" if flat_of else "SCOORD3D",
        "111030",
        "Image Region",
        GraphicType=kind,
        GraphicData=[float(number) for point in points for number in point],
    )
    if flat_of:
        reference = Dataset()
        reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        reference.ReferencedSOPInstanceUID = flat_of
        where = Dataset()
        where.ValueType, where.ReferencedSOPSequence = "IMAGE", [reference]
        shape.ContentSequence = [where]
    group = item("CONTAINER", "125007", "Measurement Group", ContentSequence=[what, shape])
    top = Dataset()
    top.ValueType, top.ContentSequence = "CONTAINER", [group]
    return top


def test_a_region_of_a_report_is_taken_from_the_picture_that_it_refers_to():
    from wardround.client.data.reading.boxes.report import read_report

    own = region([(3, 5), (13, 5), (13, 9)], flat_of="1.2.3")
    circle = region([(10, 10), (13, 14)], "CIRCLE", flat_of="1.2.3")
    other = region([(0, 0), (1, 1)], flat_of="1.2.4")

    assert_allclose(read_report(own, PICTURE, "1.2.3").corners, [[5, 3, 9, 13]])
    assert_allclose(read_report(circle, PICTURE, "1.2.3").corners, [[5, 5, 15, 15]])
    assert read_report(other, PICTURE, "1.2.3").names == ()


def test_a_region_in_millimetres_is_found_in_the_voxels_of_a_volume():
    from wardround.client.data.reading.boxes.report import read_report

    affine = np.diag([-2.0, -2.0, 3.0, 1.0])  # DICOM's own axes: to the left, to the back, up
    affine[:3, 3] = 10, 20, -30
    image = Image(VOLUME.array, (2.0, 2.0, 3.0), affine)
    # A contour about the voxels 3..5 and 7..8 of the slice 4, in LPS.
    points = [(-10 + 2 * x, -20 + 2 * y, -30 + 3 * 4) for x in (2.5, 5.5) for y in (6.5, 8.5)]

    found = read_report(region(points, "POLYGON"), image, None)

    assert found.names == ("nodule",)
    assert_allclose(found.corners, [[3, 7, 4, 6, 9, 5]], atol=1e-9)


def test_a_report_that_does_not_fit_the_image_says_what_to_export():
    from wardround.client.data.reading.boxes.report import read_report

    flat, deep = region([(3, 5), (13, 9)], flat_of="1.2.3"), region([(1, 2, 3), (4, 5, 6)])
    placed = Image(VOLUME.array, (1.0,) * 3, np.eye(4))
    for report, image, instance, reason in (
        (flat, placed, None, "in columns and rows of slices"),
        (deep, PICTURE, "1.2.3", "in millimetres of a patient"),
        (flat, PICTURE, None, "belong to a DICOM picture"),
        (deep, VOLUME, None, "does not say how it lies"),
    ):
        with pytest.raises(UnreadableError, match=reason):
            read_report(report, image, instance)


def test_a_report_that_highdicom_writes_is_read(tmp_path):
    from highdicom.sr import (
        ComprehensiveSR,
        ImageRegion,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        PersonObserverIdentifyingAttributes,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
        TrackingIdentifier,
    )
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    picture = Dataset()
    picture.SOPClassUID, picture.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", generate_uid()
    picture.StudyInstanceUID, picture.SeriesInstanceUID = generate_uid(), generate_uid()
    picture.PatientID, picture.PatientName, picture.PatientBirthDate = "p", "p", ""
    picture.PatientSex = picture.AccessionNumber = picture.StudyID = ""
    picture.StudyDate = picture.StudyTime = picture.ReferringPhysicianName = ""
    picture.Modality, picture.Rows, picture.Columns = "OT", 30, 40
    picture.BitsAllocated, picture.BitsStored, picture.HighBit = 8, 8, 7
    picture.SamplesPerPixel, picture.PixelRepresentation = 1, 0
    picture.PhotometricInterpretation, picture.PixelData = "MONOCHROME2", bytes(1200)
    picture.file_meta = FileMetaDataset()
    picture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    picture.save_as(tmp_path / "p1.dcm", enforce_file_format=True)
    area = ImageRegion(
        "POLYLINE",
        np.array([[3.0, 5.0], [13.0, 5.0], [13.0, 9.0], [3.0, 9.0], [3.0, 5.0]]),
        SourceImageForRegion(picture.SOPClassUID, picture.SOPInstanceUID),
    )
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(uid=generate_uid(), identifier="1"),
        referenced_region=area,
        finding_type=Code("1", "99X", "white cell"),
    )
    who = PersonObserverIdentifyingAttributes("Reader^A")
    context = ObservationContext(ObserverContext(codes.DCM.Person, who))
    content = MeasurementReport(context, codes.LN.CTUnspecifiedBodyRegion, [group])
    report = ComprehensiveSR(
        [picture], content, generate_uid(), 1, generate_uid(), 1, manufacturer="x"
    )
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)

    found = read(tmp_path / "report.dcm", source=Location(tmp_path / "p1.dcm"))

    assert found.names == ("white cell",)
    assert_allclose(found.corners, [[5, 3, 9, 13]])
