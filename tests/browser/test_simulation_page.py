"""The live page of a simulation in a real browser, beside a real simulation."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Heard
from tests.support.stage import (
    ENVIRONMENT,
    WARDROUND,
    bits_of,
    table_study,
    wait_until,
    write_table,
)
from tests.unit.simulations.report.live.test_following import record

from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import append_record
from wardround.simulations.run_files.events import SiteFailed, StageStarted, nobody, recording

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(os.name != "posix", reason="processes are ended by signals"),
]
HOSTILE = '<script>alert(1)</script><img src="x" onerror="alert(2)">'


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study of three hospitals whose rounds take half a second each."""
    return written(tmp_path, steps=600, rounds=8)


def written(folder: Path, steps: int, rounds: int, **changes: object) -> Path:
    manifest = write_table(folder, 90, ["north", "south", "west"])
    study: Study = table_study("lungs", manifest, steps=steps, rounds=rounds)
    study = with_changes(study, {"evaluation.keep": "best", **changes})
    (folder / "study.toml").write_text(study.to_toml())
    return folder / "study.toml"


def _hear_ctrl_c() -> None:
    """As the fixture ``hearing_signals``: a shell has jobs in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def simulating(*words: object, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Simulate as a user does; in the end the process is killed, if it still runs."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*WARDROUND, "simulate", *map(str, words)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextmanager
def watching(run: Path, log: Path) -> Iterator["tuple[str, subprocess.Popen[bytes]]"]:
    """Open the page of a run as a user does later; give its link and its process."""
    with log.open("wb") as stream:
        words = [*WARDROUND, "watch", str(run)]
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=stream, preexec_fn=_hear_ctrl_c)
    try:
        yield link_in(log), process
    finally:
        process.kill()
        process.wait()


def link_in(log: Path) -> str:
    def found() -> "re.Match[str] | None":
        return re.search(r"Watch it at (http://127\.0\.0\.1:\d+/\S+/)\n", log.read_text())

    wait_until(found)
    match = found()
    assert match is not None
    return match[1]


def test_rounds_and_sites_come_as_they_come_and_the_end_with_its_report(
    study_file: Path,
    tmp_path: Path,
    browser_page: Page,
    heard: Heard,
    axe_findings: Callable[[Page], list[str]],
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    words = (study_file, "--out", out, "--watch", "--json")
    with simulating(*words, log=log) as process:
        page, link = browser_page, link_in(log)
        page.goto(link)
        expect(page.locator("#connection")).to_have_text("Live.")
        expect(page.locator("#sites")).to_contain_text("took part", timeout=60_000)
        expect(page.locator("#course svg").first).to_be_visible()
        assert axe_findings(page) == []
        page.set_viewport_size({"width": 400, "height": 800})
        page.emulate_media(color_scheme="dark")
        assert axe_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        expect(page.locator("#rounds")).to_contain_text("round", timeout=60_000)
        expect(page.get_by_role("link", name="Open the whole report")).to_be_visible(timeout=90_000)
        expect(page.locator("#connection")).to_contain_text("It is over", timeout=30_000)
        expect(page.locator("#now")).to_contain_text("process has ended")
        said = json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 0
        expect(page.locator("#summary")).to_contain_text(said["verdict"])
        assert axe_findings(page) == []
    origin = link.rsplit("/", 2)[0]
    assert heard.origins == {origin}
    assert heard.complaints == []


def test_the_report_is_read_over_the_page_with_its_own_policy(
    tmp_path: Path, browser_page: Page, heard: Heard
) -> None:
    out = tmp_path / "run"
    study = written(tmp_path, steps=2, rounds=2)
    with simulating(study, "--out", out, "--quiet", log=tmp_path / "log") as process:
        process.communicate(timeout=120)
    with watching(out, tmp_path / "watch.log") as (page, watcher):
        browser_page.goto(page)
        link = browser_page.get_by_role("link", name="Open the whole report")
        link.focus()
        browser_page.keyboard.press("Enter")
        expect(browser_page.locator(".kicker")).to_have_text("Wardround simulation report")
        assert [one for one in heard.complaints if "Content Security" in one] == []
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(20) == 0


def test_a_run_that_is_stopped_says_so_and_one_that_is_killed_leaves_no_process(
    study_file: Path, tmp_path: Path, browser_page: Page
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with simulating(study_file, "--out", out, "--watch", log=log) as process:
        browser_page.goto(link_in(log))
        expect(browser_page.locator("#sites")).to_contain_text("took part", timeout=60_000)
        process.send_signal(signal.SIGINT)
        expect(browser_page.locator("#connection")).to_contain_text("It is over", timeout=60_000)
        expect(browser_page.locator("#summary")).to_contain_text("interrupted")
        assert process.wait(60) == 130
    again = tmp_path / "again"
    with simulating("--resume", out, "--watch", log=again) as process:
        browser_page.goto(link_in(again))
        expect(browser_page.locator("#connection")).to_have_text("Live.")
        expect(browser_page.locator("#sites")).to_contain_text("took part", timeout=60_000)
        process.kill()
        expect(browser_page.locator("#connection")).to_contain_text("It is over", timeout=60_000)
        expect(browser_page.locator("#summary")).to_contain_text("interrupted")


def test_several_runs_are_watched_together(tmp_path: Path, browser_page: Page) -> None:
    study, log = written(tmp_path, steps=20, rounds=3), tmp_path / "log"
    words = (study, "--out", tmp_path / "run", "--watch", "--quiet", "--seeds", "0,1")
    with simulating(*words, log=log) as process:
        browser_page.goto(link_in(log))
        expect(browser_page.locator("#runs")).to_contain_text("seed-1", timeout=60_000)
        expect(browser_page.locator("#connection")).to_contain_text("It is over", timeout=120_000)
        expect(browser_page.get_by_role("link", name="Open the whole report")).to_be_visible()
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_a_run_folder_from_a_stranger_does_not_become_markup(
    tmp_path: Path, browser_page: Page, heard: Heard
) -> None:
    run = tmp_path / HOSTILE.replace("/", "_")
    history = run / "checkpoints" / "federated" / "history.jsonl"
    history.parent.mkdir(parents=True)
    append_record(history, record(1, 0.5, HOSTILE, without=f"{HOSTILE} 2"))
    written(run, steps=2, rounds=2)
    with recording(run, nobody) as tell:
        tell(StageStarted(HOSTILE, 3))
        tell(SiteFailed(HOSTILE, 1, HOSTILE, HOSTILE))
    with watching(run, tmp_path / "log") as (link, _):
        browser_page.goto(link)
        expect(browser_page.locator("#connection")).to_have_text("Live.")
        expect(browser_page.locator("#sites")).to_contain_text("<script>")
        assert browser_page.locator("main img, main script").count() == 0
        assert browser_page.locator("h1").inner_text().startswith("<script>")
    assert heard.complaints == []


def test_the_model_is_the_same_with_and_without_a_page(tmp_path: Path) -> None:
    study = written(tmp_path, steps=5, rounds=3)
    for name, more in {"with": ("--watch",), "without": ()}.items():
        words = (study, "--out", tmp_path / name, "--quiet", *more)
        with simulating(*words, log=tmp_path / f"{name}.log") as process:
            process.communicate(timeout=120)
            assert process.returncode == 0
    models = [tmp_path / name / "models" / "federated.safetensors" for name in ("with", "without")]
    assert bits_of(models[0]) == bits_of(models[1])


def test_what_is_refused_at_once_leaves_neither_a_folder_nor_a_page(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    study = written(tmp_path, steps=5, rounds=3)
    study.write_text(study.read_text().replace("manifest.csv", "absent.csv"))
    with simulating(study, "--out", out, "--watch", log=log) as process:
        process.communicate(timeout=60)
    assert process.returncode == 2
    assert not out.exists()
    assert "absent.csv" in log.read_text()
