"""A real archive for each test that asks for one; without one the test skips with a word."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pacs.orthanc import NoOrthancError, Orthanc, free_port, running, unpacked

OWN_TITLE = "WARDROUND"


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc, which knows this site as WARDROUND."""
    try:
        unpacked()
        with running(tmp_path / "orthanc", **{OWN_TITLE: free_port()}) as archive:
            yield archive
    except NoOrthancError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def t1_series(shared_data: Path) -> list[Path]:
    """The 48 slices of a real T1 series."""
    found = sorted((shared_data / "dicom_t1_studyforrest" / "dicoms").iterdir())
    return [path for path in found if path.is_file()]
