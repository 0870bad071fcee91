"""A line counts once it has its end, and a chain of lines holds what was written, in its order."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.common.files.json_lines import (
    NO_HASH,
    BrokenLineError,
    ChainHead,
    append_line,
    canonical,
    from_line,
    hash_of,
    read_json_lines,
    split_lines,
    to_line,
)

CONTENT = {"what": "ä", "count": 3, "share": 0.1}


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


def sign(stated: str) -> str:
    return stated[::-1]


def verify(stated: str, signature: str) -> None:
    if sign(stated) != signature:
        fact = "is not signed"
        raise BrokenLineError(fact)


def test_a_line_is_one_text_and_no_other() -> None:
    line, stated = to_line(CONTENT, 1, NO_HASH)
    sealed = f'"number":1,"previous":"{NO_HASH}","share":0.1,"what":"\\u00e4"}}'
    assert line.decode() == f'{{"count":3,"hash":"{stated}",{sealed}'
    assert stated == hash_of(CONTENT | {"number": 1, "previous": NO_HASH})


@pytest.mark.parametrize("signed", [True, False])
def test_lines_come_back_in_their_order(signed: bool) -> None:
    previous = NO_HASH
    for number in range(5):
        line, stated = to_line(CONTENT, number, previous, sign if signed else None)
        content, read = from_line(line, number, previous, verify if signed else None)
        assert content == CONTENT | {"number": number, "previous": previous}
        assert read == stated
        previous = stated


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda line: line.replace(b":3,", b":4,"), "was changed"),
        (lambda line: line.replace(b":3,", b": 3,"), "is not written as an entry is"),
        (lambda line: line.replace(b"\\u00e4", "ä".encode()), "is not written as an entry is"),
        (lambda line: line.replace(b'"number":1', b'"number":2'), "does not follow"),
        (lambda line: line.replace(NO_HASH.encode(), b"1" * 64), "does not follow"),
        (lambda line: line.replace(b"0.1", b"NaN"), "is not an entry"),
        (lambda line: line[:-1], "is not an entry"),
        (lambda _: b"[" * 100_000, "is not an entry"),
        (lambda _: b"[]", "is not an entry"),
        (lambda _: b"{}", "is not an entry"),
        (lambda _: b'{"hash":1,"number":1,"previous":"' + NO_HASH.encode() + b'"}', "was changed"),
    ],
)
def test_a_line_that_was_not_written_there_says_how(change: object, fact: str) -> None:
    line, _ = to_line(CONTENT, 1, NO_HASH)
    with pytest.raises(BrokenLineError, match=fact):
        from_line(change(line), 1, NO_HASH)  # type: ignore[operator]


def test_a_line_needs_the_signature_of_a_signed_chain() -> None:
    line, _ = to_line(CONTENT, 1, NO_HASH)
    with pytest.raises(BrokenLineError, match="is not an entry"):
        from_line(line, 1, NO_HASH, verify)
    line, _ = to_line(CONTENT, 1, NO_HASH, lambda _: "forged")
    with pytest.raises(BrokenLineError, match="is not signed"):
        from_line(line, 1, NO_HASH, verify)


def test_every_flipped_bit_is_found() -> None:
    line, _ = to_line(CONTENT, 1, NO_HASH, sign)
    generator = random.Random(0)
    for place in range(len(line)):
        flipped = bytes([line[place] ^ 1 << generator.randrange(8)])
        with pytest.raises(BrokenLineError):
            from_line(line[:place] + flipped + line[place + 1 :], 1, NO_HASH, verify)


def test_content_that_no_reader_reads_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": float("nan")})
    assert json.loads(canonical(CONTENT)) == CONTENT


def test_of_two_heads_the_later_counts_and_two_of_one_length_may_contradict() -> None:
    nothing, first, other, later = (
        ChainHead(),
        ChainHead(1, "a" * 64),
        ChainHead(1, "b" * 64),
        ChainHead(2, "c" * 64),
    )
    assert nothing.or_later(first) == first
    assert later.or_later(first) == later
    assert first.contradicts(other)
    assert not first.contradicts(later)
    assert not first.contradicts(first)
