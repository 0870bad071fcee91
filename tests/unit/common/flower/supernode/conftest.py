"""A small message, and a site's seat at a Fleet API in memory."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Message
from tests.support.link.fleet_in_memory import Fleet
from tests.support.models_as_messages import make_message

from wardround.common.flower.supernode.supernode import SuperNode


@pytest.fixture
def message() -> Message:
    return make_message(Array(np.arange(6, dtype=np.float32)), Array(np.ones(3, dtype=np.int64)))


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def node(fleet: Fleet, heard: list[str], tmp_path: Path) -> Iterator[SuperNode]:
    made = SuperNode(fleet, tmp_path, threading.Event(), heard.append)  # type: ignore[arg-type]
    yield made
    made.leave()
