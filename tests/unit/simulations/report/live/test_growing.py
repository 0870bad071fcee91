"""A file that grows while it is read."""

from pathlib import Path

from wardround.simulations.report.live.growing import GrowingFile


def add(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_each_line_is_read_once_and_a_torn_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = GrowingFile(path)
    assert file.news() == ([], False)
    add(path, '{"a": 1}\n{"a"')
    assert file.news() == ([{"a": 1}], True)
    assert file.news() == ([], False)
    add(path, ": 2}\nno json\n3\n")
    assert file.news() == ([{"a": 2}, 3], False)


def test_a_file_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    file = GrowingFile(path)
    add(path, "1\n2\n3\n")
    file.news()
    path.write_text("1\n")
    assert file.news() == ([1], True)


def test_a_file_that_was_cut_and_has_grown_again_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    file = GrowingFile(path)
    add(path, "1\n2\n3\n")
    file.news()
    path.write_text("1\n4\n5\n6\n7\n")
    assert file.news() == ([1, 4, 5, 6, 7], True)
