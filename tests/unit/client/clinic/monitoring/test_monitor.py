import json
import stat
from datetime import date
from pathlib import Path

import pytest
from tests.support.clinic.drawn_cases import CLASSES, drawn_cases, reference_of

from wardround.client.clinic.monitoring.case import Case, case_from_json
from wardround.client.clinic.monitoring.labels import look_at_labels, performance_of
from wardround.client.clinic.monitoring.monitor import (
    add_cases,
    close_alarms,
    close_periods,
    open_alarms,
)
from wardround.client.clinic.monitoring.page import page_of
from wardround.client.clinic.monitoring.store import (
    MonitorFolder,
    Truth,
    begin_monitor,
    open_monitor,
)
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import InputError, RunError

TODAY = date(2026, 11, 27)  # a Friday of 2026-W48


def begun(site: Site, digest: str = "ab" * 32, created: str = "2026-09-01T00:00:00+00:00") -> None:
    cases = drawn_cases(120, 0, scanners=("A", "B"))
    begin_monitor(site, reference_of(digest, created), cases, b"0" * 32)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    begun(open_site(tmp_path))
    return open_site(tmp_path)


@pytest.fixture
def monitor(site: Site) -> MonitorFolder:
    return open_monitor(site)


def add(monitor: MonitorFolder, week: int, count: int = 30, **how: float) -> None:
    cases = drawn_cases(count, week, scanners=("A", "B"), **how)  # type: ignore[arg-type]
    add_cases(monitor, cases, f"2026-W{week}", TODAY)


def test_an_alarm_says_since_when_and_stays_until_a_person_closes_it(
    monitor: MonitorFolder,
) -> None:
    for week, shift in ((40, 0), (41, 0.9), (42, 2)):
        add(monitor, week, shift=shift)
    found = close_periods(monitor, today=TODAY)
    assert found[0]["verdict"] == "quiet"
    assert found[2]["verdict"] == "alarm"
    assert "since 2026-W41" in " ".join(found[2]["alarms"])
    assert "scanner A" in " ".join(found[2]["alarms"])
    assert open_alarms(monitor.entries())[-1].period == "2026-W42"
    assert close_alarms(monitor, "a new  tube\n", "anna") >= 1
    assert not open_alarms(monitor.entries())
    assert monitor.entries()[-1]["reason"] == "a new tube"
    with pytest.raises(InputError, match="no alarm is open"):
        close_alarms(monitor, "again", "anna")


def test_a_period_is_looked_at_once_and_takes_no_more(monitor: MonitorFolder) -> None:
    add(monitor, 46)
    assert len(close_periods(monitor, today=TODAY)) == 1
    assert not close_periods(monitor, today=TODAY)
    with pytest.raises(InputError, match=r"2026-W46 is over.*2026-W47 or later"):
        add(monitor, 46)
    with pytest.raises(InputError, match="was looked at already"):
        close_periods(monitor, "2026-W46", TODAY)
    with pytest.raises(InputError, match=r"there are no images of 2026-W47\. There are of: none"):
        close_periods(monitor, "2026-W47", TODAY)


def test_the_running_period_waits_for_its_end_unless_it_is_asked_for(
    monitor: MonitorFolder,
) -> None:
    add_cases(monitor, drawn_cases(30, 1), today=TODAY)
    assert not close_periods(monitor, today=TODAY)
    assert close_periods(monitor, "2026-W48", TODAY)[0]["cases"] == 30
    assert add_cases(monitor, drawn_cases(30, 2), today=TODAY).period == "2026-W49"
    with pytest.raises(InputError, match="2026-W50 lies ahead"):
        add_cases(monitor, drawn_cases(3, 3), "2026-W50", TODAY)


def test_the_same_images_are_not_counted_twice(monitor: MonitorFolder) -> None:
    cases = drawn_cases(10, 5)
    assert add_cases(monitor, cases, "2026-W40", TODAY).new == 10
    again = add_cases(monitor, [*cases, *drawn_cases(2, 6)], "2026-W41", TODAY)
    assert (again.new, again.known) == (2, 10)


def test_images_of_the_reference_are_not_counted_as_new_ones(monitor: MonitorFolder) -> None:
    assert add_cases(monitor, monitor.reference_cases(), "2026-W46", TODAY).new == 0


def test_a_clock_that_stood_ahead_does_not_end_the_monitoring_in_silence(
    monitor: MonitorFolder,
) -> None:
    ahead = date(2099, 3, 10)
    add_cases(monitor, drawn_cases(30, 46), today=ahead)
    close_periods(monitor, today=date(2099, 3, 20))
    with pytest.raises(InputError, match=r"2099-W11 was looked at.*today is 2026-11-27: the clock"):
        add_cases(monitor, drawn_cases(30, 47), today=TODAY)


def test_who_closes_a_period_early_goes_on_with_the_next(monitor: MonitorFolder) -> None:
    for seed in (46, 47):
        named = add_cases(monitor, drawn_cases(30, seed), today=TODAY).period
        close_periods(monitor, named, TODAY)
    assert add_cases(monitor, drawn_cases(30, 48), today=TODAY).period == "2026-W50"


def test_the_reference_that_was_set_last_counts_though_a_clock_stood_ahead(site: Site) -> None:
    begun(site, "cd" * 32, "2099-01-01T00:00:00+00:00")
    begun(site, "ef" * 32, "2026-11-27T00:00:00+00:00")
    assert open_monitor(site).reference.digest == "ef" * 32


def test_a_new_reference_is_the_remedy_for_a_damaged_one_of_another_model(site: Site) -> None:
    begun(site, "cd" * 32)
    (open_monitor(site, "ab" * 32).folder / "reference.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        open_monitor(site)
    assert open_monitor(site, "cd" * 32).reference.digest == "cd" * 32
    begun(site, "ef" * 32)
    assert open_monitor(site).reference.digest == "ef" * 32


def test_what_was_gathered_for_a_reference_before_is_not_counted_to_the_new_one(
    site: Site, monitor: MonitorFolder
) -> None:
    begun(site)
    with pytest.raises(InputError, match="another reference was set meanwhile"):
        add(monitor, 46)


def test_too_few_images_are_looked_at_with_the_next_period_s(monitor: MonitorFolder) -> None:
    add(monitor, 44, count=3)
    add(monitor, 45, count=20)
    few, both = close_periods(monitor, today=TODAY)
    assert few["verdict"] == "too few"
    assert (both["cases"], both["with"]) == (23, ["2026-W44"])


def test_rates_are_pooled_over_periods_until_there_are_enough(monitor: MonitorFolder) -> None:
    for week in range(40, 48):
        add(monitor, week, count=25, rate=0.5 if week < 44 else 0.2)
    found = close_periods(monitor, today=TODAY)
    pooled = [
        next(f["cases"] for f in entry["findings"] if f["family"] == "predictions")
        for entry in found
    ]
    assert pooled[:4] == [25, 50, 75, 100]
    assert not any(entry["alarms"] for entry in found[:4])
    assert any("The class abnormal" in " ".join(entry["alarms"]) for entry in found)


def test_only_the_owner_reads_the_folder_and_no_name_is_in_it(monitor: MonitorFolder) -> None:
    add(monitor, 40)
    close_periods(monitor, today=TODAY)
    for path in monitor.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE(monitor.folder.stat().st_mode) == 0o700
    assert monitor.key_of("/data/Anna_Berg.png") != monitor.key_of("/data/Anna_Berg2.png")


def test_a_changed_line_of_the_table_is_told(monitor: MonitorFolder) -> None:
    add(monitor, 40)
    close_periods(monitor, today=TODAY)
    path = monitor.folder / "periods.jsonl"
    path.write_text(path.read_text().replace('"quiet"', '"alarm"', 1))
    with pytest.raises(RunError, match=r"line 1 of .* was changed: restore the file"):
        monitor.entries()


def test_a_torn_line_is_written_over(monitor: MonitorFolder) -> None:
    add(monitor, 40)
    with (monitor.folder / "cases.jsonl").open("a") as stream:
        stream.write('{"period": "2026-W')
    add(monitor, 41)
    assert {name: len(some) for name, some in monitor.cases().items()} == {
        "2026-W40": 30,
        "2026-W41": 30,
    }


def test_a_reference_of_another_model_is_refused_by_name(site: Site) -> None:
    with pytest.raises(InputError, match=r"was set with the model 'tiny' \(abababab\), and this"):
        open_monitor(site, "cd" * 32, "other")


def test_a_new_reference_puts_the_old_one_aside(site: Site) -> None:
    add(open_monitor(site), 40)
    begun(site, created="2026-12-01T00:00:00+00:00")
    assert not open_monitor(site).cases()
    assert len(list((site.state_folder / "monitoring").iterdir())) == 2


def test_a_site_without_a_reference_is_told_the_command(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    with pytest.raises(InputError, match="wardround site monitor reference"):
        open_monitor(open_site(tmp_path))


def test_a_damaged_reference_is_told(monitor: MonitorFolder, site: Site) -> None:
    (monitor.folder / "reference.json").write_text("{}")
    with pytest.raises(InputError, match=r"reference\.json is damaged"):
        open_monitor(site)


def test_a_case_comes_back_as_it_was_written() -> None:
    (case,) = drawn_cases(1, 0)
    unsure = Case(case.key, case.state, "A", case.looks, case.outputs)
    for one in (case, unsure):
        assert repr(case_from_json(json.loads(json.dumps(one.as_json())))) == repr(one)


def truths(cases: list[Case], right: bool = True) -> list[Truth]:
    other = dict(zip(CLASSES, CLASSES[::-1], strict=True))
    return [Truth(c.key, (c.found[0] if right else other[c.found[0]],)) for c in cases]


def test_labels_that_come_later_tell_that_the_model_errs(monitor: MonitorFolder) -> None:
    add(monitor, 40)
    own = drawn_cases(30, 40, scanners=("A", "B"))
    quiet = look_at_labels(monitor, truths(drawn_cases(120, 0)))
    assert quiet["findings"] == []
    wrong = truths(own[:15]) + truths(own[15:], right=False)
    entry = look_at_labels(monitor, wrong)
    assert entry["verdict"] == "alarm"
    assert any(text.startswith("Accuracy is 0.5 (reference 1)") for text in entry["alarms"])
    after = performance_of(own, monitor.truths())
    assert after is not None
    assert (after.cases, after.accuracy) == (30, 0.5)
    assert 0 < after.calibration_error < 1


def test_the_page_tells_the_alarm_and_holds_nothing_to_load(monitor: MonitorFolder) -> None:
    for week, shift in ((40, 0), (41, 3)):
        add(monitor, week, shift=shift)
    close_periods(monitor, today=TODAY)
    look_at_labels(monitor, truths(drawn_cases(120, 0)) + truths(drawn_cases(30, 41)))
    page = page_of(monitor)
    assert "1 alarm is open, since 2026-W41" in page
    assert page.count("<figure") >= 5
    assert "src=" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_scanner_s_name_cannot_write_on_the_page(site: Site) -> None:
    monitor = open_monitor(site)
    add_cases(monitor, drawn_cases(30, 1, scanners=("<script>x\u202e", "A")), "2026-W40", TODAY)
    close_periods(monitor, today=TODAY)
    page = page_of(monitor)
    assert "<script" not in page
    assert "\u202e" not in page
