"""Arrays on disk: what is wrong with the interpreter is no fault of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.data.reading.array_files import load_array, open_array
from wardround.client.data.reading.image import UnreadableError

MISMATCH = "AST constructor recursion depth mismatch (before=87, after=85)"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(("times", "is_read"), [(2, True), (3, False)])
def test_an_error_of_the_interpreter_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, times: int, is_read: bool
) -> None:
    path = tmp_path / f"scan{suffix}"
    values = np.arange(6.0).reshape(2, 3)
    np.save(path, values) if suffix == ".npy" else np.savez(path, image=values)
    failing = [SystemError(MISMATCH)] * times

    def once(real: Any) -> Any:
        def load(*args: Any, **kwargs: Any) -> Any:
            if failing:
                raise failing.pop()
            return real(*args, **kwargs)

        return load

    monkeypatch.setattr(np, "load", once(np.load))
    monkeypatch.setattr(np.lib.format, "read_array", once(np.lib.format.read_array))
    if is_read:
        np.testing.assert_array_equal(open_array(path, None), values)
    else:
        with pytest.raises(UnreadableError, match="SystemError"):
            open_array(path, None)


def test_a_file_that_is_written_over_is_not_what_was_mapped(tmp_path: Path) -> None:
    path = tmp_path / "scan.npy"
    np.save(path, np.zeros(3))
    mapped = load_array(path, "c")
    mapped[0] = 7.0  # copied on write
    assert load_array(path).tolist() == [0.0, 0.0, 0.0]
