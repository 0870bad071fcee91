"""Shared fixtures."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real medical data beside the checkout; tests skip where it is absent."""
    folder = Path(os.environ.get("WARDROUND_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip("real data sets are absent: set WARDROUND_DATA to their folder")
    return folder
