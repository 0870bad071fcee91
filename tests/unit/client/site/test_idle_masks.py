"""Secrets of masked rounds that nobody goes on with do not lie about."""

import os
import time
from pathlib import Path

import pytest
from tests.support.hostile.masking import configuration, context

from wardround.client.site.idle_masks import MASKING_FOLDER, STATE, WORDS_KEPT, erase_idle
from wardround.common.privacy.secure_aggregation.site_state import SiteRound


@pytest.mark.parametrize(("days", "erased"), [(-2, 1), (0, 0), (0.5, 0), (2, 1), (27_000, 1)])
def test_a_round_of_another_day_is_erased_whichever_way_the_clock_jumped(
    tmp_path: Path, days: float, erased: int
) -> None:
    folder = tmp_path / MASKING_FOLDER / ("a" * 32)
    folder.mkdir(parents=True)
    (folder / STATE).write_bytes(SiteRound.begin(context(configuration())).to_bytes())
    (folder / WORDS_KEPT).write_bytes(b"an update")
    written = time.time() + days * 86_400
    os.utime(folder / STATE, (written, written))
    assert erase_idle(tmp_path) == erased
    assert SiteRound.from_bytes((folder / STATE).read_bytes()).is_over == bool(erased)
    assert (folder / WORDS_KEPT).exists() != bool(erased)
