"""How many threads a process takes, on a machine that it may have to share."""

import pytest

from wardround.common.runtime.system import limits


@pytest.mark.parametrize(
    ("said", "processes", "expected"),
    [
        (None, 1, 8),
        (None, 3, 2),
        (None, 20, 1),
        ("1", 1, 1),
        ("4", 1, 4),
        ("4", 4, 2),
        ("4,2", 1, 4),
        ("0", 1, 8),
        ("many", 1, 8),
        ("", 1, 8),
    ],
)
def test_processes_share_the_cores_and_heed_what_the_environment_says(
    said: str | None, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert limits.threads_each(processes) == expected
