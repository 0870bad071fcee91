"""Memory that processes share: it goes with the last of them, and a name never means another."""

import os
import subprocess
import sys

import pytest

from wardround.common.runtime.system.shared_memory import make_segment, open_segment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory without a name is Linux's")
_READ = (
    "import sys; from wardround.common.runtime.system.shared_memory import open_segment;"
    "print(bytes(open_segment(sys.argv[1]).buf[:4]).decode())"
)


def test_another_process_reads_what_was_written_and_nothing_lies_in_a_folder() -> None:
    before = set(os.listdir("/dev/shm"))
    segment = make_segment(4096)
    assert segment.buf is not None
    segment.buf[:4] = b"ward"
    assert set(os.listdir("/dev/shm")) == before
    said = subprocess.run(
        [sys.executable, "-c", _READ, segment.name], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "ward"
    segment.close()
    segment.close()


def test_a_name_whose_segment_was_closed_opens_nothing_else() -> None:
    first = make_segment(8)
    name = first.name
    first.close()
    second = make_segment(8)  # gets the descriptor's number again
    assert second.name != name
    with pytest.raises(FileNotFoundError):
        open_segment(name)
    second.close()


def test_where_the_system_has_none_the_named_one_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    segment = make_segment(16)
    assert segment.buf is not None
    segment.buf[:4] = b"ward"
    other = open_segment(segment.name)
    assert other.buf is not None
    assert bytes(other.buf[:4]) == b"ward"
    other.close()
    segment.close()
    segment.unlink()
