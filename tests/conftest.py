"""Shared fixtures."""

import csv
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.studies.tiny_study import TINY_STUDY, Said, TinyStudy

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ["WARDROUND_USER_FILE"] = ""  # the trackers of whoever runs the tests are told nothing

# Tables are as wide as the terminal that the tests happen to be started in, and break their words
# there: "SOCKS proxy" was cut in two where it had 100 columns. A test of a narrow one sets it.
os.environ["COLUMNS"] = "240"


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real medical data beside the checkout; tests skip where it is absent."""
    folder = Path(os.environ.get("WARDROUND_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip("real data sets are absent: set WARDROUND_DATA to their folder")
    return folder


@pytest.fixture
def hearing_signals() -> Callable[[], None]:
    """For ``preexec_fn``: a child that is sent a signal hears it, however the tests were started.

    A shell has jobs in the background ignore Ctrl-C, nohup has them ignore that a terminal closes,
    and children inherit both.
    """

    def restore() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return restore


@pytest.fixture
def tiny_study(tmp_path: Path) -> TinyStudy:
    """Ten patients a hospital: 6 train, 2 validate, 2 test; a bright square is abnormal."""
    tiny = TinyStudy(tmp_path / "data")
    (tiny.folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = [("patient", "image", "label", "site", "split")]
    for number in range(20):
        pixels = generator.integers(0, 80, (16, 16)).astype(np.uint8)
        if number % 2:
            pixels[4:12, 4:12] += 120
        picture = tiny.picture(number)
        Image.fromarray(pixels).save(picture)
        label, site = ("normal", "abnormal")[number % 2], ("north", "south")[number // 10]
        split = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2
        row = (f"CANARYPATIENT{number:03d}", f"images/{picture.name}", label, site)
        rows.append((*row, split[number % 10]))
    with tiny.manifest.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    tiny.study.write_text(TINY_STUDY.format(manifest=tiny.manifest), encoding="utf-8")
    return tiny


@pytest.fixture
def wardround(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """The command line, run in this process through its own front door."""
    from wardround.cli import main

    monkeypatch.delenv("WARDROUND_TRACEBACK", raising=False)

    def run(*words: object) -> Said:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["wardround", *(str(word) for word in words)])
        handlers = logging.root.handlers[:]
        with pytest.raises(SystemExit) as end:
            main()
        # A command that sets up a log writes it to what is captured here, and only here.
        logging.root.handlers[:] = handlers
        said = capfd.readouterr()
        code = end.value.code
        return Said(code if isinstance(code, int) else int(bool(code)), said.out, said.err)

    return run


@pytest.fixture
def robustness_toolbox(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The attacks and the classifiers of the Adversarial Robustness Toolbox.

    Its import sets the log up anew, which closes every handler's stream: what pytest captures, too.
    """
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    evasion = pytest.importorskip("art.attacks.evasion")
    return evasion, pytest.importorskip("art.estimators.classification")
