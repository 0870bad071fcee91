"""``wardround site doctor`` opens every file of the manifest, once."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.support.studies.tiny_study import Said
from tests.support.tables import Pictures, make_pictures

from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image
from wardround.client.doctor.check import run_check
from wardround.client.doctor.images import check_images
from wardround.client.site.folder import open_site
from wardround.common.files.account import Account, acting_as

Run = Callable[..., Said]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    with tempfile.TemporaryDirectory() as folder:  # which another account may enter
        Path(folder).chmod(0o755)
        (Path(folder) / "site.toml").write_text('name = "north"\ndevice = "cpu"\n')
        yield make_pictures(Path(folder))


def said_by_doctor(run: Run, pictures: Pictures, *options: str) -> dict[str, str]:
    """Return the line "images" of the command; empty where there is none."""
    said = run("site", "doctor", pictures.folder, "--json", *options)
    assert "CANARY" not in said.out.replace(str(pictures.folder), "")
    checks = {check["name"]: check for check in json.loads(said.out)}
    found: dict[str, str] = checks.get("images", {})
    return found


def images_check(pictures: Pictures) -> dict[str, str]:
    """Return that line without all others, each of which takes its time."""
    found = asdict(run_check("images", partial(check_images, open_site(pictures.folder))))
    assert "CANARY" not in f"{found}".replace(str(pictures.folder), "")
    return found


def test_files_are_opened_once_and_again_when_they_change(
    pictures: Pictures, wardround: Run
) -> None:
    check = said_by_doctor(wardround, pictures)
    assert check == {
        "name": "images", "status": "ok", "fact": "12 files can be opened", "remedy": ""
    }  # fmt: skip
    opened = pictures.folder / "state" / "opened" / "files.jsonl"
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.parent.stat().st_mode) == 0o700
    assert "CANARY" not in opened.read_text()
    check = images_check(pictures)
    assert check["fact"] == "12 files can be opened, 12 of them not again"
    picture = pictures.folder / "CANARY03.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    check = images_check(pictures)
    assert check["status"] == "fail"
    assert check["fact"].startswith("1 of 12 files cannot be used: the file is damaged")
    assert check["fact"].endswith("in row 5 of the manifest")


def test_quick_opens_nothing(pictures: Pictures, wardround: Run) -> None:
    (pictures.folder / "CANARY03.png").write_bytes(b"")
    assert said_by_doctor(wardround, pictures, "--quick") == {}


def test_each_kind_of_fault_is_counted_with_its_rows(pictures: Pictures) -> None:
    rows = pictures.rows()
    volume = pictures.folder / "CANARYv.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(729.0).reshape(9, 9, 9), np.eye(4)), volume)
    volume.write_bytes(volume.read_bytes()[:-60])
    np.save(pictures.folder / "CANARY.npy", np.full((2, 8, 8), np.nan, np.float32))
    (pictures.folder / "CANARYseries").mkdir()
    os.mkfifo(pictures.folder / "CANARYendless.png")  # nobody ever writes into it
    for row, name in {2: "CANARYv.nii.gz", 4: "CANARY.npy#1", 5: "CANARY.npy#7"}.items():
        rows[row][1] = name
    rows[6][1], rows[3][1] = "CANARYseries", "CANARYendless.png"
    pictures.write(rows)
    for number in (0, 1, 7, 8, 9, 10, 11):
        (pictures.folder / f"CANARY{number:02d}.png").write_bytes(b"")
    check = images_check(pictures)
    fact = check["fact"]
    assert fact.startswith("12 of 12 files cannot be used")
    assert "the file is empty, in rows 2, 3, 9, 10, 11, 12, 13" in fact
    assert "not finite, in row 6" in fact
    assert "in row 7" in fact
    assert "it is no file and no folder, in row 5" in fact
    assert "the folder is empty, in row 8" in fact
    assert "(EOFError), in row 4" in fact


def test_the_first_ten_rows_are_named_and_the_others_counted(pictures: Pictures) -> None:
    for number in range(12):
        (pictures.folder / f"CANARY{number:02d}.png").write_bytes(b"")
    check = images_check(pictures)
    assert "the file is empty, in rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more" in check["fact"]


def test_who_left_the_manifest_leaves_the_list_of_opened_files(pictures: Pictures) -> None:
    images_check(pictures)
    pictures.write(pictures.rows()[:4])
    images_check(pictures)
    opened = pictures.folder / "state" / "opened" / "files.jsonl"
    assert len(opened.read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff", b'{"format": 1}\n[]\n', b"[" * 99_999])
def test_a_damaged_list_is_begun_anew(pictures: Pictures, content: bytes) -> None:
    images_check(pictures)
    (pictures.folder / "state" / "opened" / "files.jsonl").write_bytes(content)
    check = images_check(pictures)
    assert check["fact"] == "12 files can be opened"


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, hearing_signals: Callable[[], None]) -> None:
    make_pictures(tmp_path)
    (tmp_path / "site.toml").write_text('name = "north"\ndevice = "cpu"\n')
    slow = (
        "import time, wardround.client.doctor.images as images\n"
        "from wardround.cli import main\n"
        "look = images.open_image\n"
        "images.open_image = lambda one: (time.sleep(0.3), look(one))[1]\n"
        "main()\n"
    )
    words = (sys.executable, "-c", slow, "site", "doctor", str(tmp_path))
    opened = tmp_path / "state" / "opened" / "files.jsonl"
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hearing_signals
    ) as process:
        until = time.monotonic() + 60
        while not opened.exists() or opened.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    lines = opened.read_bytes().splitlines()
    assert 3 <= len(lines) < 13
    assert all(json.loads(line) for line in lines)


@needs_root
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_files_that_the_sites_account_may_not_read_are_said_with_the_remedy(
    pictures: Pictures, wardround: Run, closed: str
) -> None:
    images = pictures.folder / "images"
    images.mkdir()
    rows = pictures.rows()
    for row in rows:
        (pictures.folder / row[1]).rename(images / row[1])
        row[1] = f"images/{row[1]}"
    pictures.write(rows)
    for path in (pictures.folder, *pictures.folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (images if closed == "folder" else images / "CANARY03.png").chmod(0)
    check = said_by_doctor(wardround, pictures)
    assert check["status"] == "fail"
    assert "may not read the file, in row" in check["fact"]
    assert check["fact"].startswith("12 of 12" if closed == "folder" else "1 of 12")
    assert check["remedy"] == "give the account the right to read them."


@needs_root
@pytest.mark.parametrize("name", ["CANARY03.png", "series"])
def test_reading_says_permission_and_not_damage(pictures: Pictures, name: str) -> None:
    series = pictures.folder / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"DICM")
    path = pictures.folder / name
    path.chmod(0)
    with acting_as(Account(NOBODY, NOBODY)), pytest.raises(UnreadableError) as refusal:
        read_image(Location(path), 2)
    assert "may not read the file: give it the right to read it" in str(refusal.value)
    assert "CANARY" not in str(refusal.value)
