"""A site that has imported nothing yet, and its rules."""

from pathlib import Path

import pytest
from tests.unit.client.clinic.onboarding.made_import import RULES


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "import.toml"
    path.write_text(RULES)
    return path
