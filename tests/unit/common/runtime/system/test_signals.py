"""A command that is told to end does so, wherever the signal meets it."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="there is no SIGTERM")
_PROGRAM = """
import sys, time
from wardround.common.runtime.system.signals import ended_like_ctrl_c

class Slow:
    def __del__(self):
        print("in an object's end", flush=True)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            pass

try:
    with ended_like_ctrl_c():
        Slow()
        print("goes on", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""

_BELOW_A_LIBRARY = """
import faulthandler, signal, sys, time
from wardround.common.runtime.system.signals import ended_like_ctrl_c, take_back_signals

try:
    with ended_like_ctrl_c():
        faulthandler.register(signal.SIGTERM, chain=False)
        take_back_signals()
        signal.alarm(40)
        print("goes on", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit("it is aborted in the middle of its end" if signal.alarm(0) else 130)
"""


def test_a_signal_that_meets_an_objects_end_is_heard_again() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in an object's end\n"
    began = time.monotonic()
    process.terminate()
    _, said = process.communicate(timeout=50)
    assert process.returncode == 130, said
    assert time.monotonic() - began < 40, "it did not sleep to its end"
    assert "Traceback" not in said


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="there is no SIGALRM")
def test_a_signal_that_a_library_has_taken_is_taken_back_and_leaves_time_to_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _BELOW_A_LIBRARY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "goes on\n"
    process.terminate()
    _, said = process.communicate(timeout=50)
    assert process.returncode == 130, said
    assert not said, "the library wrote where its processes stand"
