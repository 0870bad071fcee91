"""What becomes of freed memory, in a process of its own: the settings are the C library's."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import torch
from wardround.common.runtime.system.memory import keep_freed_memory, return_freed_memory

{order}
for _ in range(20):
    torch.empty(2**21).zero_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(2**21).zero_()  # 8 MB: the activations of a layer
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(order: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(order=order)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="these are settings of glibc")
def test_a_process_that_trains_keeps_its_memory_whoever_is_asked_last() -> None:
    assert page_faults("keep_freed_memory(); return_freed_memory()") < 1000
    assert page_faults("return_freed_memory(); keep_freed_memory()") < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="these are settings of glibc")
def test_a_server_gives_large_blocks_back() -> None:
    assert page_faults("return_freed_memory()") > 20 * 1000
