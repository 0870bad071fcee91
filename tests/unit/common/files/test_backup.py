"""A backup is whole or refused, and nothing in it reaches outside the folder that it makes."""

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from wardround.common.errors import InputError, RunError
from wardround.common.files.backup import BackupWriter, restored, write_backup


def backed_up(tmp_path: Path) -> Path:
    source, file = tmp_path / "source", tmp_path / "b.tar"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "one.txt").write_bytes(b"one" * 1000)
    (source / "deep" / "two.part").write_bytes(b"unfinished")
    (source / "deep" / "link").symlink_to("/etc/passwd")

    def fill(writer: BackupWriter) -> None:
        assert not writer.add(source / "gone.txt", "gone.txt")
        writer.add_tree(source / "deep", "deep", lambda path: path.suffix != ".part")

    assert write_backup(file, "site", "0.1.0", fill) == 1
    return file


def restore(file: Path, folder: Path) -> None:
    with restored(file, "site", folder):
        pass


def test_what_was_backed_up_comes_back_private_to_its_owner(tmp_path: Path) -> None:
    file = backed_up(tmp_path)
    restore(file, tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").rglob("*.*")] == ["one.txt"]
    assert (tmp_path / "back" / "deep" / "one.txt").read_bytes() == b"one" * 1000
    assert (tmp_path / "back").stat().st_mode & 0o077 == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_backup_is_not_written_over_another(tmp_path: Path) -> None:
    file = backed_up(tmp_path)
    with pytest.raises(InputError, match="there already"):
        write_backup(file, "site", "0.1.0", lambda _: None)


def test_a_folder_that_holds_something_is_not_restored_over(tmp_path: Path) -> None:
    file = backed_up(tmp_path)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "ledger").write_text("newer")
    with pytest.raises(InputError, match="holds something"):
        restore(file, tmp_path / "back")


@pytest.mark.parametrize("left", [0, 1, 700, 2048, 4000])
def test_a_backup_that_was_cut_off_is_refused_and_leaves_nothing(tmp_path: Path, left: int) -> None:
    file = backed_up(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(InputError):
        restore(file, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob(".restoring*"))


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    file = backed_up(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"oneone", b"oneonE", 1))
    with pytest.raises(InputError, match="damaged"):
        restore(file, tmp_path / "back")


def test_the_backup_of_a_server_is_no_site(tmp_path: Path) -> None:
    file = backed_up(tmp_path)
    with (
        pytest.raises(InputError, match="backup of a site"),
        restored(file, "server", tmp_path / "x"),
    ):
        pass


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "", "a\0b"])
@pytest.mark.parametrize("kind", ["file", "link", "hard link"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / "b.tar"
    with tarfile.open(file, "w") as archive:
        entry = tarfile.TarInfo(name)
        if kind == "file":
            entry.size = 3
        else:
            entry.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
            entry.linkname = "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b"out"))
        last = json.dumps(
            {"kind": "site", "wardround": "0", "written": 0.0, "files": {name: "0" * 64}}
        ).encode()
        entry = tarfile.TarInfo("backup.json")
        entry.size = len(last)
        archive.addfile(entry, io.BytesIO(last))
    with pytest.raises(InputError):
        restore(file, tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"b.tar"}


def test_a_backup_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    def full(_: BackupWriter) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f".b.tar.{os.getpid()}.part")

    with pytest.raises(RunError, match=r"not written \(No space left on device\): make room"):
        write_backup(tmp_path / "b.tar", "site", "0.1.0", full)
    with pytest.raises(InputError, match=r"there is no folder .*no: make it"):
        write_backup(tmp_path / "no" / "b.tar", "site", "0.1.0", lambda _: None)
