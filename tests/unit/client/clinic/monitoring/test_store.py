"""What a site keeps of its monitoring, damaged in every way: a sentence with the file's place."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.clinic.drawn_cases import drawn_cases, reference_of

from wardround.client.clinic.monitoring.monitor import add_cases
from wardround.client.clinic.monitoring.store import (
    MonitorFolder,
    Truth,
    begin_monitor,
    open_monitor,
)
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import InputError, RunError

Reading = Callable[[MonitorFolder], object]
READINGS: dict[str, Reading] = {
    "reference.jsonl": MonitorFolder.reference_cases,
    "cases.jsonl": MonitorFolder.cases,
    "truths.jsonl": MonitorFolder.truths,
    "periods.jsonl": MonitorFolder.entries,
    "secret": lambda monitor: monitor.key_of("week/image.png"),
}
LINES = {
    "not JSON": b"{\n",
    "a list": b"[]\n",
    "a number": b"1\n",
    "nothing in it": b"{}\n",
    "nested deeply": b"[" * 200_000 + b"\n",
    "of another kind": b'{"period": 3, "case": null, "key": "a", "value": {}, "classes": 1}\n',
    "no bytes of a text": b"\xff\xfe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site.toml").write_text('name = "north"\n')
    opened = open_site(tmp_path)
    begin_monitor(
        opened, reference_of("ab" * 32, "2026-09-01T00:00:00+00:00"), drawn_cases(30, 0), b"0" * 32
    )
    monitor = open_monitor(opened)
    add_cases(monitor, drawn_cases(3, 1), "2026-W10")
    monitor.add_truths([Truth("k1-0", ("normal",))])
    return opened


@pytest.mark.parametrize("name", [name for name in READINGS if name.endswith(".jsonl")])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_damaged_line_is_said_with_the_file_and_a_remedy(
    site: Site, name: str, line: bytes
) -> None:
    monitor = open_monitor(site)
    (monitor.folder / name).write_bytes(line)
    with pytest.raises((InputError, RunError)) as refused:
        READINGS[name](monitor)
    assert name in str(refused.value)
    assert "restore" in str(refused.value)


@pytest.mark.parametrize("name", READINGS)
def test_a_file_that_cannot_be_read_is_said_with_its_name(site: Site, name: str) -> None:
    monitor = open_monitor(site)
    (monitor.folder / name).unlink(missing_ok=True)
    (monitor.folder / name).mkdir()
    with pytest.raises(InputError, match=rf"{name} is damaged: restore it"):
        READINGS[name](monitor)


@pytest.mark.parametrize(
    ("key", "value"), [("every", []), ("alarms_a_year", None), ("classes", "ab"), ("digest", 3)]
)
def test_a_reference_with_a_value_of_another_kind_is_damaged(
    site: Site, key: str, value: object
) -> None:
    path = open_monitor(site).folder / "reference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=r"reference\.json is damaged"):
        open_monitor(site)
