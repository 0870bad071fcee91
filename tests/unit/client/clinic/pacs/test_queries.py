"""What is asked of an archive in one line, checked before the archive is asked."""

from pathlib import Path

import pytest

from wardround.client.clinic.pacs.fetching import fetch_asked
from wardround.common.errors import InputError, WardroundError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs:north?modalty=MR", "Did you mean 'modality'?"),
        ("pacs:north?patient=4711", "unknown key after 'pacs:SITE?' 'patient'"),
        ("pacs:north?from=2026-09-01", "no day"),
        ("pacs:north?study=..%2F..%2Fetc", "no Study Instance UID"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        fetch_asked(text, tmp_path / "out")
    assert words in str(refused.value)
    assert "4711" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_site_is_said(tmp_path: Path) -> None:
    with pytest.raises(WardroundError, match="site"):
        fetch_asked(f"pacs:{tmp_path / 'nobody'}?modality=MR", tmp_path / "out")
