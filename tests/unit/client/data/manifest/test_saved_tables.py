"""Tables as people save them: read alike for a hospital and for a simulation, or refused in words.

Each case is read twice, as a site's manifest and as a researcher's; patients and files are called
CANARY..., which no message may say.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.tables import HEADER, Pictures, make_pictures

from wardround.client.data.manifest.manifest import Manifest, open_manifest
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.simulations.datasets.catalogue import load_dataset
from wardround.simulations.datasets.examinations import Examinations
from wardround.simulations.studies import find_study


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    return make_pictures(tmp_path)


def read_both(pictures: Pictures) -> tuple[Manifest, Examinations]:
    study = find_study(str(pictures.study))
    simulation = study.simulation
    own = load_dataset(simulation.data, simulation.options, None, study)
    return open_manifest(open_site(pictures.folder), study), own


def refused(pictures: Pictures) -> str:
    """Check that both readers say the same, name nobody, and give a remedy; return it."""
    study = find_study(str(pictures.study))
    simulation = study.simulation
    said = []
    for read in (
        lambda: open_manifest(open_site(pictures.folder), study),
        lambda: load_dataset(simulation.data, simulation.options, None, study),
    ):
        with pytest.raises(InputError) as refusal:
            read()
        said.append(str(refusal.value))
    assert said[0] == said[1]
    assert "CANARY" not in said[0].replace(str(pictures.folder), "")
    return said[0]


def as_bytes(encoding: str, separator: str = ",", ending: str = "\r\n") -> Callable[[str], bytes]:
    def save(text: str) -> bytes:
        return text.replace(",", separator).replace("\n", ending).encode(encoding)

    return save


@pytest.mark.parametrize(
    "save",
    [
        as_bytes("utf-8"),
        as_bytes("utf-8-sig"),
        as_bytes("utf-16"),
        as_bytes("utf-16-le"),
        as_bytes("utf-16-be"),
        as_bytes("utf-32"),
        as_bytes("utf-16", "\t"),
        as_bytes("utf-8", ";"),
        as_bytes("utf-8", "\t", "\n"),
        as_bytes("utf-8", "|", "\n"),
        as_bytes("utf-8", ",", "\r"),
        lambda text: b"sep=;\r\n" + text.replace(",", ";").encode(),
        lambda text: text.replace("\n", ",,\n").encode() + b",,,,,\n \xc2\xa0,\xe2\x80\x8b,,,,\n\n",
        lambda text: text.replace(",", " , ").encode(),
        lambda text: text.replace(",", "\u200b,\u200b").encode(),
        lambda text: text.replace(HEADER, HEADER.upper()).encode(),
        lambda text: text.replace(HEADER, " Patient , Image,LABEL ,Split").encode(),
        lambda text: text.replace("train", "Training ").replace("validation", " VAL").encode(),
        lambda text: text.replace(",test", ",“Test”").replace("normal", "Normal").encode(),
        lambda text: text.replace("abnormal", "1.0").replace("normal", '"0,0"').encode(),
        lambda text: ('"' + text.strip().replace(",", '","').replace("\n", '"\n"') + '"').encode(),
        lambda text: re.sub(r"\n(CANARY\d+)", r'\n"=""\1"""', text).encode(),
    ],
)  # fmt: skip
def test_a_table_is_read_however_it_was_saved(
    pictures: Pictures, save: Callable[[str], bytes]
) -> None:
    text = pictures.manifest.read_text(encoding="utf-8")
    pictures.manifest.write_bytes(save(text))
    manifest, own = read_both(pictures)
    assert [e.patient for e in manifest.examinations] == [r[0] for r in pictures.rows()]
    assert [e.label for e in manifest.examinations] == [(n % 2,) for n in range(12)]
    assert [e.split for e in manifest.examinations] == [r[3] for r in pictures.rows()]
    assert all(e.images[0].path.exists() for e in manifest.examinations)
    assert [r.patient for r in own.rows] == [e.patient for e in manifest.examinations]
    assert [r.label for r in own.rows] == ["normal", "abnormal"] * 6
    assert [r.split for r in own.rows] == [e.split for e in manifest.examinations]
    assert manifest.notes == own.notes == ()


def change(row: int, column: int, cell: str) -> Callable[[Pictures], None]:
    """Return what writes another cell; rows as a spreadsheet counts them, columns from 0."""

    def write(pictures: Pictures) -> None:
        rows = pictures.rows()
        rows[row - 2][column] = cell
        pictures.write(rows)

    return write


def with_bytes(old: bytes, new: bytes) -> Callable[[Pictures], None]:
    def write(pictures: Pictures) -> None:
        data = pictures.manifest.read_bytes()
        assert old in data
        pictures.manifest.write_bytes(data.replace(old, new, 1))

    return write


def whole(data: bytes) -> Callable[[Pictures], None]:
    return lambda pictures: void(pictures.manifest.write_bytes(data))


def swallow_rows(pictures: Pictures) -> None:
    with_bytes(b"CANARY003", b'"CANARY003')(pictures)
    with_bytes(b"08.png", b'08.png"')(pictures)


def void(_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (whole(b""), ("is empty", "give it a header")),
        (whole(b"\n\n , ,\n"), ("is empty",)),
        (whole(HEADER.encode()), ("a header but no rows",)),
        (whole(b"CANARY1,CANARY.png,normal\n"), ("lacks the column patient", "its first row")),
        (whole(b"PK\x03\x04rest"), ("a workbook", "save it as 'CSV UTF-8'")),
        (whole(b"\xd0\xcf\x11\xe0rest"), ("an old Excel workbook",)),
        (whole(b"<html>"), ("HTML",)),
        (with_bytes(b"CANARY003", b"CANARY\xfc003"), ("row 5", "not UTF-8", "CSV UTF-8")),
        (with_bytes(b"CANARY003", b"CANARY\x00003"), ("row 5", "bytes that are 0")),
        (with_bytes(b"CANARY003", b'"CANARY003'), ("from row 5 on", "a quote opens")),
        (with_bytes(b"\nCANARY003", b'\n"CANARY003'), ("from row 5 on", "a quote opens")),
        (swallow_rows, ("from row 5 on", "takes in later rows")),
        (with_bytes(b",train\n", b",train,more\n"), ("more cells than columns in row 2", "quote")),
        (with_bytes(b"split", b"label"), ("two columns label",)),
        (with_bytes(b"split", b"Label"), ("two columns Label, label",)),
        (with_bytes(b"patient", "p\u0430tient".encode()), ("letters of another alphabet",)),
        (with_bytes(b"patient", b"PatientID"), ("lacks the column patient", "'PatientID'")),
        (change(7, 0, "#N/A"), ("column patient holds an error of a spreadsheet in row 7",)),
        (change(7, 0, "nan"), ("column patient says that there is none in row 7",)),
        (change(7, 0, " \u00a0"), ("column patient is empty in row 7",)),
        (change(7, 0, "1.23457E+11"), ("spreadsheet has rounded in row 7", "as text")),
        (change(7, 1, "#REF!"), ("column image holds an error of a spreadsheet in row 7",)),
        (change(7, 1, "\u200b"), ("column image is empty in row 7",)),
        (change(7, 2, "#NAME?"), ("column label holds an error of a spreadsheet in row 7",)),
        (change(7, 2, "2.0"), ("names no class of the study in row 7",)),
        (change(7, 2, "1.5"), ("names no class of the study in row 7",)),
        (change(7, 2, "abnorma\u043b"), ("names no class of the study in row 7",)),
        (change(7, 3, "dev"), ("column split names no split in row 7", "write train")),
        (change(7, 3, ""), ("column split is empty, but not in other rows in row 7",)),
        (change(13, 0, "canary000"), ("names that look alike in rows 2, 13", "one name")),
        (change(13, 0, "'CANARY000"), ("names that look alike in rows 2, 13",)),
        (change(13, 0, "CANARY 000"), ("names that look alike in rows 2, 13",)),
        (change(13, 0, "C\u0410NARY000"), ("names that look alike in rows 2, 13",)),
        (change(13, 0, "CANARY\u200b000"), ("also in another split in row 13",)),
        (change(13, 0, " CANARY000\u00a0"), ("also in another split in row 13",)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_for_certain_is_refused_with_its_row(
    pictures: Pictures, spoil: Callable[[Pictures], object], words: tuple[str, ...]
) -> None:
    spoil(pictures)
    said = refused(pictures)
    for word in words:
        assert word in said


@pytest.mark.parametrize(("first", "second"), [("007", "7"), ("1E5", "100000"), ("12.0", "12")])
def test_numbers_that_a_spreadsheet_changes_are_not_two_patients_without_a_word(
    pictures: Pictures, first: str, second: str
) -> None:
    rows = pictures.rows()
    rows[0][0], rows[11][0] = first, second
    pictures.write(rows)
    assert "names that look alike in rows 2, 13" in refused(pictures)
    rows[1][0], rows[11][0] = second, "other"
    pictures.write(rows)
    manifest, own = read_both(pictures)
    assert manifest.notes == own.notes
    assert "in rows 2, 3: write one name" in manifest.notes[0]
    assert len({e.patient for e in manifest.examinations}) == 12


def test_a_date_among_names_of_patients_is_said(pictures: Pictures) -> None:
    rows = pictures.rows()
    rows[2][0], rows[3][0] = "12-Mar", "Mar-12"
    pictures.write(rows)
    manifest, own = read_both(pictures)
    assert manifest.notes == own.notes
    assert manifest.notes[0].startswith("the patient is a date in rows 4, 5: if a spreadsheet")


def test_a_name_that_only_looks_like_a_month_is_no_date(pictures: Pictures) -> None:
    rows = pictures.rows()
    rows[2][0], rows[3][0] = "val-18", "12-CTA"
    pictures.write(rows)
    manifest, _ = read_both(pictures)
    assert not [note for note in manifest.notes if "is a date" in note]


def test_a_header_between_two_exports_is_no_patient(pictures: Pictures) -> None:
    text = pictures.manifest.read_text(encoding="utf-8").splitlines()
    text[5:5] = [HEADER.replace(",", " , ")]
    pictures.manifest.write_text("\n".join(text), encoding="utf-8")
    manifest, _ = read_both(pictures)
    assert [e.row for e in manifest.examinations] == [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]


def test_a_patient_is_one_however_the_letters_are_composed(pictures: Pictures) -> None:
    rows = pictures.rows()
    rows[0][0] = unicodedata.normalize("NFC", "Müller-12")
    rows[1][0] = unicodedata.normalize("NFD", "Müller-12")
    pictures.write(rows)
    manifest, own = read_both(pictures)
    assert manifest.examinations[0].patient == manifest.examinations[1].patient
    assert len({row.patient for row in own.rows}) == 11
    rows[1][3] = "test"
    pictures.write(rows)
    assert "the patient is also in another split in row 3" in refused(pictures)


AGE_AND_SEX = """
covariates = [{name = "age"}, {name = "sex", values = ["male", "female"]}]
optional = ["age", "sex"]"""


def covariates_of(
    pictures: Pictures, separator: str, *cells: tuple[str, str]
) -> list[tuple[str, ...]]:
    rows = [
        [*row, f'"{age}"', sex]
        for row, (age, sex) in zip(pictures.rows(), cells * 12, strict=False)
    ]
    pictures.write(rows, f"{HEADER},Age,sex", AGE_AND_SEX)
    text = pictures.manifest.read_text(encoding="utf-8")
    if separator != ",":
        text = "\n".join(
            separator.join(
                part if part.startswith('"') else part.replace(",", separator)
                for part in _parts(line)
            )
            for line in text.splitlines()
        )
        pictures.manifest.write_text(text, encoding="utf-8")
    manifest, own = read_both(pictures)
    study = find_study(str(pictures.study))
    names = [covariate.name for covariate in study.data.covariates]
    assert [tuple(row.covariates[name] for name in names) for row in own.rows] == [
        e.covariates for e in manifest.examinations
    ]
    return [e.covariates for e in manifest.examinations[: len(cells)]]


def _parts(line: str) -> list[str]:
    """Return the cells of a line of which one may be quoted."""
    before, quote, rest = line.partition('"')
    if not quote:
        return line.split(",")
    within, _, after = rest.partition('"')
    return [*before.rstrip(",").split(","), f'"{within}"', *after.lstrip(",").split(",")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_numbers_have_decimal_commas_where_the_table_says_so(
    pictures: Pictures, separator: str
) -> None:
    found = covariates_of(pictures, separator, ("61,5", "Male"), ("7", "FEMALE "), ("", "female"))
    assert found == [("61.5", "male"), ("7", "female"), ("", "female")]


def test_signs_for_what_is_missing_are_no_number_and_no_category(pictures: Pictures) -> None:
    cells = [(sign, sign) for sign in ("?", "NA", "#N/A", "-", ".", "nan", "<NA>")]
    for age, sex in covariates_of(pictures, ",", *cells):
        assert age in ("?", "NA", "#N/A", "-", ".", "nan", "<NA>")
        assert sex not in ("male", "female")


@pytest.mark.parametrize(
    ("separator", "cells", "words"),
    [
        (",", [("1,5", "male")], "column age is not a number in rows 2"),
        ("\t", [("1,234", "male")], "column age is not a number in rows 2"),
        (";", [("1.234,5", "male")], "column age is not a number in rows 2"),
        (
            ";",
            [("1,5", "male"), ("1.5", "male")],
            "has a point in its number, and a comma in other",
        ),
        (",", [("1_000", "male")], "column age is not a number in rows 2"),
        (",", [("061Y", "male")], "column age is not a number in rows 2"),
        (",", [("1e300", "male")], "column age is a number beyond 1e\\+12 in rows 2"),
        (",", [("#DIV/0!", "male")], "column age holds an error of a spreadsheet in rows 2"),
    ],
)
def test_a_number_that_could_be_two_is_refused(
    pictures: Pictures, separator: str, cells: list[tuple[str, str]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        covariates_of(pictures, separator, *cells)


def test_a_category_that_the_study_does_not_list_is_said(pictures: Pictures) -> None:
    covariates_of(pictures, ",", ("1", "male"), ("1", "divers"))
    manifest, own = read_both(pictures)
    assert manifest.notes == own.notes
    assert (
        "column sex holds words that the study does not list, in rows 3, 5, 7" in manifest.notes[0]
    )


def test_grades_by_number_go_by_their_name_before_their_place(pictures: Pictures) -> None:
    rows = pictures.rows()
    for number, row in enumerate(rows):
        row[2] = f"{number % 2 + 1}.0"
    pictures.write(rows)
    study = pictures.study.read_text().replace('["normal", "abnormal"]', '["1", "2"]')
    pictures.study.write_text(study)
    manifest, own = read_both(pictures)
    assert [e.label for e in manifest.examinations[:2]] == [(0,), (1,)]
    assert [row.label for row in own.rows[:2]] == ["1", "2"]


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        (unicodedata.normalize("NFD", "Köln.png"), unicodedata.normalize("NFC", "Köln.png")),
        (unicodedata.normalize("NFC", "Köln.png"), unicodedata.normalize("NFD", "Köln.png")),
        (unicodedata.normalize("NFD", "Köln/a.png"), "Köln/a.png"),
        ("sub/a.png", "sub\\a.png"),
        ("sub/a.png", ".\\sub\\a.png"),
        ("Sub/A.PNG", "sub/a.png"),
        ("Sub/A.PNG", "SUB\\a.png"),
        ("ein bild.png", "ein%20bild.png"),
        ("Köln 1.png", "K%C3%B6ln%201.png"),
        ("a  b.png", "a b.png"),
        ("100%.png", "100%.png"),
        ("a\u00a0b.png", "a b.png"),
        ("set/data.npy", "set\\data.npy#0"),
    ],
)
def test_a_file_is_found_under_the_name_that_was_meant(
    pictures: Pictures, on_disk: str, written: str
) -> None:
    place = pictures.folder / on_disk
    place.parent.mkdir(exist_ok=True)
    (pictures.folder / "CANARY03.png").rename(place)
    change(5, 1, f'"{written}"')(pictures)
    manifest, own = read_both(pictures)
    assert manifest.examinations[3].images[0].path == place
    assert own.rows[3].images["image"].partition("#")[0] == str(place)


def test_a_file_address_is_followed(pictures: Pictures) -> None:
    (pictures.folder / "CANARY03.png").rename(pictures.folder / "a b.png")
    change(5, 1, f"file://{pictures.folder}/a%20b.png")(pictures)
    manifest, _ = read_both(pictures)
    assert manifest.examinations[3].images[0].path == pictures.folder / "a b.png"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("gone.png", "names is missing in row 5"),
        ("C:\\CANARY\\03.png", "it is a path of a Windows machine in row 5"),
        ("\\\\server\\CANARY\\03.png", "it is a path of a Windows machine in row 5"),
        ("canary03.PNG", "names is there under several names"),
        ("CANARY" * 60, "names is missing in row 5"),
    ],
)
def test_a_file_that_is_not_meant_for_certain_is_refused(
    pictures: Pictures, written: str, words: str
) -> None:
    (pictures.folder / "Canary03.png").write_bytes(b"another")
    change(5, 1, written)(pictures)
    with pytest.raises(InputError, match=words):
        open_manifest(open_site(pictures.folder), find_study(str(pictures.study)))


def test_rows_are_counted_as_the_file_has_them(pictures: Pictures) -> None:
    rows = pictures.rows()
    rows[3][2] = "CANARYlabel"
    pictures.write(rows)
    text = pictures.manifest.read_text(encoding="utf-8")
    text = text.replace("CANARY001,", "\n,,,\nCANARY001,")  # two empty rows above the fault
    text = text.replace(f"{HEADER}\n", f"{HEADER},note\n").replace(
        "normal,train\n", 'normal,train,"two\nlines"\n', 1
    )
    pictures.manifest.write_text(text, encoding="utf-8")
    assert "names no class of the study in row 7" in refused(pictures)
