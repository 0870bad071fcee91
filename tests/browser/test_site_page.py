"""The hospital's page in a real browser, beside a real daemon and a real link."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Heard
from tests.e2e.test_site_daemon import QUICK, asking, site_info, write_site
from tests.support.stage import CANARY, Deployment, deployed, wait_until

from wardround.client.policy.approvals import read_decisions
from wardround.common.messages.instructions import DESCRIBE
from wardround.common.study.loading import with_changes

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
HOSTILE = '<script>alert(1)</script><img src="x" onerror="alert(2)">\n  - it asks nothing'
ASKED = with_changes(QUICK, {"study.name": "lungs", "study.description": HOSTILE})
PATIENCE = 120_000  # a study is worked out by a process that imports torch


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A link, a daemon that trained one study, and another study that waits for a decision."""
    with deployed(tmp_path) as made:
        made.start_link()
        write_site(made.join("north"), QUICK)
        made.start_site("north")
        with asking(made, QUICK) as asked:
            asked.ask(DESCRIBE, site_info(QUICK))
            asked.train()
        with asking(made, ASKED) as asked:
            asked.ask(DESCRIBE, site_info(ASKED))
        yield made


def opened(deployment: Deployment, *words: str) -> str:
    """Start the page of the site, and return its link."""
    folder = deployment.site("north")
    deployment.spawn("page", "wardround.cli", "site", "page", folder, *words)
    wait_until(lambda: "\n" in deployment.log("page"))
    found = re.search(r"Open (http://127\.0\.0\.1:\d+/\S+/)\n", deployment.log("page"))
    assert found is not None, deployment.log("page")
    return found[1]


def test_what_was_asked_what_left_and_what_the_daemon_is_at(
    deployment: Deployment,
    browser_page: Page,
    heard: Heard,
    axe_findings: Callable[[Page], list[str]],
) -> None:
    page, link = browser_page, opened(deployment)
    page.goto(link)
    expect(page.locator("#connection")).to_have_text("Live.")
    expect(page.locator("#summary")).to_contain_text("Connected, and waiting for work. 1 study")
    expect(page.locator("#left")).to_contain_text("Verified: ", timeout=30_000)
    expect(page.locator("#left table")).to_contain_text("update")
    expect(page.locator("#asked")).to_contain_text("lungs")
    page.get_by_role("button", name="Read what lungs asks").click()
    expect(page.locator("#study")).to_contain_text("What you would approve", timeout=PATIENCE)
    expect(page.locator("#study")).to_contain_text("--allow-decisions")
    assert page.locator("#study form").count() == 0  # it only reads
    assert axe_findings(page) == []
    page.set_viewport_size({"width": 400, "height": 800})
    page.emulate_media(color_scheme="dark")
    assert axe_findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    # What others wrote is text, and no patient is named.
    assert page.locator("main script, main img").count() == 0
    assert CANARY not in page.content()
    assert CANARY not in deployment.log("page")
    assert heard.origins == {link.rsplit("/", 2)[0]}
    assert heard.complaints == []


def test_a_page_for_reading_takes_no_decision_even_if_asked(
    deployment: Deployment, browser_page: Page
) -> None:
    browser_page.goto(opened(deployment))
    answer = browser_page.evaluate(
        """async (study) => {
            const body = new URLSearchParams({study, mark: ""});
            const said = await fetch("do/reject", {
                method: "POST", body, headers: {"X-Wardround": "1"},
            });
            return said.status;
        }""",
        ASKED.digest,
    )
    assert answer == 403
    assert read_decisions(deployment.site("north")) == ()


def test_a_study_is_approved_and_rejected_with_the_keyboard_alone(
    deployment: Deployment, browser_page: Page
) -> None:
    page, folder = browser_page, deployment.site("north")
    page.goto(opened(deployment, "--allow-decisions"))
    expect(page.locator("#connection")).to_have_text("Live.")
    press(page, "Read what lungs asks")
    expect(page.locator("#study")).to_contain_text("What you would approve", timeout=PATIENCE)
    press(page, "Approve this study")
    expect(page.locator("#question")).to_contain_text("This spends no epsilon")
    assert page.evaluate("document.activeElement.textContent") == "No"
    page.keyboard.press("Enter")
    assert read_decisions(folder) == ()
    press(page, "Approve this study")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("has approved", timeout=PATIENCE)
    (approved,) = read_decisions(folder)
    assert (approved.verdict, approved.digest) == ("approved", ASKED.digest)
    assert any("rounds: an approval is for" in line for line in approved.terms)
    expect(page.locator("#asked")).to_contain_text("No study waits")
    expect(page.locator("#decided")).to_contain_text("approved")
    press(page, "Read again")
    expect(page.locator("#study")).to_contain_text("What you would approve", timeout=PATIENCE)
    press(page, "Reject this study")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("has rejected", timeout=PATIENCE)
    assert read_decisions(folder)[-1].verdict == "rejected"
    with asking(deployment, ASKED) as asked:
        refused = asked.ask(DESCRIBE, site_info(ASKED))
        assert refused.refusal is not None
        assert refused.refusal.code == "rejected"


def press(page: Page, label: str) -> None:
    """Reach a button with the tab key, however far it is, and press it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == label:
            page.keyboard.press("Enter")
            return
    pytest.fail(f"no key reaches {label}")


def test_a_daemon_that_is_killed_shows_within_five_seconds_and_the_page_goes_on(
    deployment: Deployment, browser_page: Page
) -> None:
    link = opened(deployment)
    browser_page.goto(link)
    expect(browser_page.locator("#summary")).to_contain_text("Connected")
    daemon = next(one for one in deployment.processes if "start" in str(one.args))
    began = time.monotonic()
    daemon.kill()
    daemon.wait()
    expect(browser_page.locator("#summary")).to_contain_text("No daemon runs here")
    assert time.monotonic() - began < 5
    expect(browser_page.locator("#asked")).to_contain_text("lungs")
    deployment.start_site("north")
    expect(browser_page.locator("#summary")).to_contain_text("Connected", timeout=60_000)


def test_the_data_are_looked_at_on_a_button_and_no_patient_is_named(
    deployment: Deployment, browser_page: Page, axe_findings: Callable[[Page], list[str]]
) -> None:
    page = browser_page
    page.goto(opened(deployment))
    page.get_by_role("button", name="Look at the data").click()
    expect(page.locator("#data table").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#data")).to_contain_text("40 examinations of 40 patients")
    page.get_by_role("button", name="Check the site").click()
    expect(page.locator("#data table")).to_have_count(2, timeout=PATIENCE)
    assert CANARY not in page.content()
    assert axe_findings(page) == []
