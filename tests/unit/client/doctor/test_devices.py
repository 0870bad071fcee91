"""The doctor's check of several devices."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wardround.client.doctor.check import Check, run_check
from wardround.client.doctor.folder import check_device
from wardround.client.site.folder import open_site


def checked(folder: Path, devices: str) -> Check:
    (folder / "site.toml").write_text(f'name = "north"\ndevices = {devices}')
    site = open_site(folder)
    return run_check("device", lambda: check_device(site))


def gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    kinds = [SimpleNamespace(name=name, total_memory=80 * 10**9) for name in names]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda one: kinds[one.index])


def test_a_device_that_is_not_there_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, "H200")
    said = checked(tmp_path, '["cuda:0", "cuda:1"]')
    assert said.status == "fail"
    assert "'cuda:1' is not there" in said.fact + said.remedy


def test_alike_devices_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, "H200", "H200")
    said = checked(tmp_path, '["cuda:0", "cuda:1"]')
    assert (said.status, said.fact) == ("ok", "2 GPUs together: H200, 80 GB, H200, 80 GB")


def test_devices_that_are_not_alike_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, "H200", "T4")
    said = checked(tmp_path, '["cuda:0", "cuda:1"]')
    assert said.status == "warn"
    assert "not alike" in said.fact


def test_processes_on_the_cpu_are_a_warning(tmp_path: Path) -> None:
    said = checked(tmp_path, '["cpu", "cpu"]')
    assert said.status == "warn"
    assert "2 processes on the CPU" in said.fact
