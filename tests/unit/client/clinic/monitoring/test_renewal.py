from datetime import date
from pathlib import Path

import pytest
from tests.support.clinic.drawn_cases import drawn_cases, reference_of

from wardround.client.clinic.monitoring.monitor import (
    add_cases,
    close_alarms,
    close_periods,
    in_force,
    open_alarms,
)
from wardround.client.clinic.monitoring.renewal import RENEWALS, renewal_named
from wardround.client.clinic.monitoring.store import MonitorFolder, begin_monitor, new_secret
from wardround.client.policy.monitoring_word import FOLDER, LAST_LOOK
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import InputError

LATER = date(2026, 12, 31)
TWO = ("A", "B")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    return open_site(tmp_path)


def begun(site: Site, scanners: tuple[str, ...] = ("",)) -> MonitorFolder:
    reference = reference_of("a" * 64, "2026-01-01T00:00:00.000000+00:00")
    cases = drawn_cases(120, 0, scanners=scanners)
    return MonitorFolder(begin_monitor(site, reference, cases, new_secret()))


def live(monitor: MonitorFolder, week: int, count: int, shift: float, **more: object) -> str:
    period = f"2026-W{week:02d}"
    cases = drawn_cases(count, week, shift=shift, **more)  # type: ignore[arg-type]
    add_cases(monitor, cases, period, today=LATER)
    (entry,) = close_periods(monitor, today=LATER)
    return str(entry["verdict"])


def test_a_change_that_stays_alarms_again_until_it_is_the_new_normal(site: Site) -> None:
    monitor = begun(site)
    assert live(monitor, 1, 40, 3) == "alarm"
    close_alarms(monitor, "a new tube", "physicist")
    assert live(monitor, 2, 40, 3) == "alarm"
    close_alarms(monitor, "a new tube, it stays", "physicist", "renew")
    held = in_force(monitor)
    assert len(held.cases) == 80  # since it began, in week 1
    assert held.lacking == 20
    assert live(monitor, 3, 40, 3) == "learning"
    assert in_force(monitor).lacking == 0
    assert live(monitor, 4, 40, 3) in ("quiet", "notice")
    assert live(monitor, 5, 40, 0) == "alarm"  # the old images are strange now


def test_the_new_normal_of_one_scanner_leaves_the_others_as_they_were(site: Site) -> None:
    monitor = begun(site, TWO)
    changed = [
        *drawn_cases(30, 11, shift=3, scanners=("A",)),
        *drawn_cases(30, 12, scanners=("B",)),
    ]
    add_cases(monitor, changed, "2026-W01", today=LATER)
    (entry,) = close_periods(monitor, today=LATER)
    assert entry["verdict"] == "alarm"
    close_alarms(monitor, "tube of A", "physicist", "renew")
    by_scanner = [case.scanner for case in in_force(monitor).cases]
    assert by_scanner.count("B") == 60
    assert by_scanner.count("A") == 30


def test_where_nothing_had_changed_the_images_join_the_reference_once(site: Site) -> None:
    monitor = begun(site)
    live(monitor, 1, 30, 0)
    assert live(monitor, 2, 30, 3) == "alarm"
    close_alarms(monitor, "nothing had changed", "physicist", "extend")
    assert len(in_force(monitor).cases) == 120 + 60
    assert live(monitor, 3, 30, -5) == "alarm"
    close_alarms(monitor, "again nothing", "physicist", "extend")
    assert len(in_force(monitor).cases) == 120 + 90


def test_the_reference_that_was_set_is_kept_as_it_was(site: Site) -> None:
    monitor = begun(site)
    before = (monitor.folder / "reference.jsonl").read_bytes()
    live(monitor, 1, 40, 3)
    close_alarms(monitor, "a new tube", "physicist", "renew")
    assert (monitor.folder / "reference.jsonl").read_bytes() == before
    assert not open_alarms(monitor.entries())


def test_an_unknown_way_lists_the_known() -> None:
    with pytest.raises(InputError, match="extend"):
        renewal_named("renw")
    assert [renewal_named(name) for name in RENEWALS] == list(RENEWALS)


def test_what_was_found_last_lies_there_for_the_word_that_may_leave(site: Site) -> None:
    monitor = begun(site)
    place = site.state_folder / FOLDER / LAST_LOOK
    assert not place.exists()
    live(monitor, 1, 40, 3)
    assert place.read_text() == '{"period": "2026-W01", "alarm": true}\n'
