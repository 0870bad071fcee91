"""A study's process, as far as it goes without a link."""

import threading
from pathlib import Path

import pytest

from wardround.common.flower.serverapp.grid import LinkLostError
from wardround.common.study.loading import parse_study
from wardround.server.link.address import LinkAddress, write_address
from wardround.server.scheduling import process as study_process
from wardround.server.scheduling.folder import STUDY_FILE, RunFolder
from wardround.server.scheduling.process import StudyProcess
from wardround.server.service.installation import init_server


def test_a_study_goes_on_over_the_same_link_when_that_has_forgotten_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, over = tmp_path / "server", list[LinkAddress]()
    init_server(server, "a test", ["localhost"], "127.0.0.1", 8443)
    write_address(server, LinkAddress(9, "secret"))
    run = RunFolder(server, "one")
    run.path.mkdir(parents=True)
    data = {"kind": "table", "classes": ["no", "yes"], "covariates": [{"name": "a"}]}
    study = parse_study(
        {
            "study": {"name": "one", "task": "classification"},
            "data": data,
            "model": {"network": "mlp"},
            "federation": {"rounds": 1},
        }
    )
    (run.path / STUDY_FILE).write_text(study.to_toml())

    def work_over(_: StudyProcess, address: LinkAddress) -> None:
        over.append(address)
        if len(over) == 1:
            raise LinkLostError

    monkeypatch.setattr(study_process, "_LOST_SECONDS", 0.0)
    monkeypatch.setattr(StudyProcess, "_work_over", work_over)
    working = threading.Thread(target=StudyProcess(server, run).work, daemon=True)
    working.start()
    working.join(20)
    assert not working.is_alive(), "it waits for another link for ever"
    assert len(over) == 2
