"""The operators' page in a browser: a real server, three real daemons, and what an operator does.

Run longer by hand, with pictures: ``WARDROUND_PICTURES=/tmp/page make browser``.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Heard
from tests.support.stage import CANARY, Deployment, deployed, table_study, wait_until, write_table

from wardround.simulations.local_federation.processes import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SITES = ("north", "south", "west")
STUDY = table_study("Lung nodules", steps=100, rounds=400, minimum_sites=2)
NEXT = table_study("Next in turn", rounds=2, minimum_sites=2)
_SHOWN_SECONDS = 5.0
_PATIENCE = 120_000.0  # milliseconds


def _write_site(folder: Path) -> None:
    write_table(folder, 60)
    digests = json.dumps([STUDY.digest, NEXT.digest])
    (folder / "policy.toml").write_text(
        "privacy_required = false\nsmallest_cohort = 10\nsmallest_cell = 1\n"
        f'metrics = "sums"\napproved = {digests}\n'
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Iterator[Deployment]:
    """A server with its page, and three hospitals."""
    with deployed(tmp_path_factory.mktemp("p")) as made:
        made.change_settings(pages=f"127.0.0.1:{free_port()}", page_actions=True)
        made.start_server()
        for name in SITES:
            _write_site(made.join(name))
            made.start_site(name)
        yield made


@pytest.fixture
def link(town: Deployment) -> str:
    return (town.server / "page.link").read_text().strip()


def _row(page: Page, region: str, name: str):  # type: ignore[no-untyped-def] # a Locator
    return page.locator(f"#{region} tr", has=page.locator("th", has_text=name))


def _picture(page: Page, name: str) -> None:
    """Keep pictures of the page, wide and narrow, light and dark, where they are asked for."""
    place = os.environ.get("WARDROUND_PICTURES")
    if place is None:
        return
    for width in (1200, 400):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.screenshot(path=f"{place}-{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.emulate_media(color_scheme="light")


def test_an_operator_sees_runs_rounds_and_sites_and_a_killed_site_within_five_seconds(
    town: Deployment,
    link: str,
    browser_page: Page,
    heard: Heard,
    axe_findings: Callable[[Page], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = browser_page
    page.goto(link)
    for name in SITES:
        expect(_row(page, "sites", name)).to_contain_text("connected", timeout=_PATIENCE)
    _submit(page, STUDY.to_toml())
    expect(page.locator("#said")).to_contain_text("is run lung-nodules-1; it is next")
    expect(page.locator("#now")).to_contain_text("round 2 of 400", timeout=_PATIENCE)
    expect(page.locator("#course")).to_contain_text("who took part", ignore_case=True)
    expect(_row(page, "sites", "west")).to_contain_text("training", timeout=_PATIENCE)
    expect(page.locator("#events")).to_contain_text("round 2/400 in")
    expect(page.locator("#course svg").first).to_be_visible()
    assert axe_findings(page) == []
    _picture(page, "running")
    process = next(one for one in town.processes if str(town.site("west")) in one.args)
    killed_at = time.monotonic()
    process.kill()
    expect(_row(page, "sites", "west")).to_contain_text("lost", timeout=_SHOWN_SECONDS * 2000)
    shown_after = time.monotonic() - killed_at
    with capsys.disabled():
        sys.stdout.write(f"\na site killed with -9 is shown as lost after {shown_after:.1f} s\n")
    assert shown_after < _SHOWN_SECONDS
    _picture(page, "killed")
    _stop_by_keyboard(page, "lung-nodules-1")
    expect(page.locator("#now")).to_contain_text("stopped", timeout=_PATIENCE)
    town.start_site("west")
    expect(_row(page, "sites", "west")).to_contain_text("connected", timeout=_PATIENCE)
    _picture(page, "stopped")
    assert {urls for urls in heard.origins if not urls.startswith("data:")} == {
        link.rpartition("/")[0].rpartition("/")[0]
    }
    assert heard.complaints == []
    assert CANARY not in page.content()


def test_an_invitation_is_shown_once_and_is_in_no_log_and_no_event(
    town: Deployment, link: str, browser_page: Page, axe_findings: Callable[[Page], list[str]]
) -> None:
    page = browser_page
    page.goto(link)
    page.get_by_text("Invite a site").click()
    page.get_by_label("Name of the site").fill("east")
    page.get_by_role("button", name="Invite").click()
    token = page.locator("#said pre").inner_text(timeout=20_000).strip()
    assert len(token) > 40
    assert axe_findings(page) == []
    _picture(page, "invited")
    page.reload()
    assert token not in page.content()
    logs = [*town.folder.glob("*.log"), *town.server.rglob("*.log")]
    assert all(token not in log.read_text() for log in logs)
    assert "operator=local method=InviteSite by=page" in town.log("server")


def test_a_study_that_is_refused_is_answered_with_the_servers_sentence(
    link: str, browser_page: Page
) -> None:
    page = browser_page
    page.goto(link)
    _submit(page, STUDY.to_toml().replace('task = "classification"', 'task = "astrology"'))
    expect(page.locator("#said")).to_contain_text("unknown task 'astrology'. Known:")
    expect(page.locator("#study-text")).not_to_be_empty()


def _submit(page: Page, text: str) -> None:
    page.get_by_text("Submit a study").click()
    page.get_by_label("Its text").fill(text)
    page.get_by_role("button", name="Submit").click()


def _stop_by_keyboard(page: Page, run: str) -> None:
    page.get_by_role("button", name=f"Stop {run}").focus()
    page.keyboard.press("Enter")
    page.locator("#question").wait_for(state="visible")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")


def test_the_report_of_a_run_opens_from_the_list(
    town: Deployment, link: str, browser_page: Page, heard: Heard
) -> None:
    page = browser_page
    page.goto(link)
    wait_until(lambda: page.get_by_role("link", name="lung-nodules-1").count())
    page.get_by_role("link", name="lung-nodules-1").click()
    expect(page.locator("h1")).to_have_text("Lung nodules")
    assert heard.complaints == []
