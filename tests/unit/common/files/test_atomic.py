"""A file is there whole or not at all, private from the first moment, and on the disk if asked."""

import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.common.files import atomic
from wardround.common.files.atomic import (
    BY_UMASK,
    OWNER_ONLY,
    READABLE,
    create_file,
    put_in_place,
    remove_unfinished,
    replace_file,
)

OLD, NEW = b"the old one", b"the new one" * 1000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def streamed(part: Path) -> None:
    with part.open("wb") as stream:
        for _ in range(1000):
            stream.write(b"the new one")


@pytest.mark.parametrize("content", [NEW, NEW.decode(), streamed], ids=["bytes", "text", "writer"])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(place: Path, content: object) -> None:
    replace_file(place, content)  # type: ignore[arg-type]
    assert place.read_bytes() == NEW
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mode", "found"), [(OWNER_ONLY, 0o600), (READABLE, 0o640), (BY_UMASK, 0o640)]
)
@pytest.mark.parametrize("content", [NEW, streamed], ids=["bytes", "writer"])
def test_a_file_has_its_mode_less_what_the_umask_takes(
    tmp_path: Path, content: bytes, mode: int, found: int
) -> None:
    replace_file(tmp_path / "new", content, mode)
    assert mode_of(tmp_path / "new") == found


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    seen = []

    def look(part: Path) -> None:
        seen.append(mode_of(part))
        part.write_bytes(NEW)
        seen.append(mode_of(part))

    replace_file(tmp_path / "key", look)
    assert seen == [0o600, 0o600]


@pytest.mark.parametrize("content", [NEW, streamed], ids=["bytes", "writer"])
@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_has_the_content_before_the_name_and_the_name_before_the_end(
    place: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, content: bytes
) -> None:
    seen: list[tuple[bool, bytes]] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), place.read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    replace_file(place, content, durable=durable)
    assert seen == ([(False, OLD), (True, NEW)] if durable else [])


@pytest.mark.parametrize("failing", ["fsync", "replace", "writer"])
def test_what_cannot_be_written_leaves_the_old_file_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif failing == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(place, fail if failing == "writer" else NEW)
    assert place.read_bytes() == OLD
    assert list(place.parent.iterdir()) == [place]


def test_a_writer_that_is_interrupted_leaves_nothing(place: Path) -> None:
    def interrupt(part: Path) -> None:
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(place, interrupt)
    assert place.read_bytes() == OLD
    assert list(place.parent.iterdir()) == [place]


def replace_and_die(path: Path, share: float) -> None:
    real = atomic.write_new

    def write(part: Path, content: bytes, *rest: object) -> None:
        real(part, content[: round(share * len(content))], *rest)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    atomic.write_new = write  # type: ignore[assignment]
    replace_file(path, NEW)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_kill_leaves_the_old_file_and_its_rest_can_be_removed(place: Path, share: float) -> None:
    child = multiprocessing.get_context("fork").Process(target=replace_and_die, args=(place, share))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert place.read_bytes() == OLD
    assert len(list(place.parent.iterdir())) == 2
    remove_unfinished(place)
    assert list(place.parent.iterdir()) == [place]


def test_the_rest_of_another_file_is_not_removed(tmp_path: Path) -> None:
    other = tmp_path / ".file.bin2.1-1.part"
    other.write_bytes(b"half")
    remove_unfinished(tmp_path / "file.bin")
    remove_unfinished(tmp_path / "file.[b]in*")
    assert other.exists()


def test_threads_that_replace_one_file_leave_one_of_them_whole(place: Path) -> None:
    contents = [bytes([65 + n]) * 200_000 for n in range(4)]

    def write(content: bytes) -> None:
        for _ in range(20):
            replace_file(place, content, durable=False)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert place.read_bytes() in [OLD, *contents]
    assert list(place.parent.iterdir()) == [place]


def test_a_file_that_is_there_is_not_created_again(place: Path) -> None:
    with pytest.raises(FileExistsError):
        create_file(place, NEW)
    assert place.read_bytes() == OLD
    create_file(place.with_name("other"), NEW)
    assert place.with_name("other").read_bytes() == NEW
    assert mode_of(place.with_name("other")) == 0o600
    assert len(list(place.parent.iterdir())) == 2


def test_a_folder_is_put_in_its_place_and_its_name_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    for name, durable in (("a", True), ("b", False)):
        (tmp_path / "staged").mkdir()
        put_in_place(tmp_path / "staged", tmp_path / name, durable)
        assert (tmp_path / name).is_dir()
    assert synced == [tmp_path.stat().st_ino]
