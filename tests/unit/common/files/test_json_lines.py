"""A line counts once it has its end, and what could not be written whole is not there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.common.files.json_lines import append_line, read_json_lines, split_lines


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    descriptor = os.open(tmp_path / "lines", flags, 0o600)
    append_line(descriptor, b"1\n", 0, durable=False)
    yield descriptor
    os.close(descriptor)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert read_json_lines(path) == []
    for content, values in ((b"", []), (b"1", []), (b'1\n{"a": 2}\n\n{"a', [1, {"a": 2}])):
        path.write_bytes(content)
        assert read_json_lines(path) == values
    assert split_lines(b"a\n\nb") == ([b"a", b""], b"b")
    assert split_lines(b"a\n") == ([b"a"], b"")


def test_a_whole_line_that_is_not_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"a\n1\n')
    with pytest.raises(ValueError, match="line 1"):
        read_json_lines(tmp_path / "lines")


def test_a_line_is_written_whole_where_the_kernel_takes_it_in_parts(
    opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    append_line(opened, b"1234567\n", 2, durable=True)
    assert read_json_lines(tmp_path / "lines") == [1, 1234567]


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_line_that_is_not_on_the_disk_is_not_in_the_file(
    opened: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    error: BaseException,
) -> None:
    real = os.write

    def fail(descriptor: int, data: bytes = b"") -> None:
        real(descriptor, data[:3])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(type(error)):
            append_line(opened, b"1234567\n", 2, durable=True)
    assert (tmp_path / "lines").read_bytes() == b"1\n"


@pytest.mark.parametrize("durable", [True, False])
def test_a_line_waits_for_the_disk_if_asked(
    opened: int, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    append_line(opened, b"2\n", 2, durable)
    assert synced == [opened] * durable
