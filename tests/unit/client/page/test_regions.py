"""The parts of the hospital's page: what others wrote stays text, and deciding is asked for."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

from wardround.client.daemon.status import DaemonStatus, Trouble, work_of
from wardround.client.page.errands import Errand
from wardround.client.page.regions import REGIONS, regions_of, summary_of
from wardround.client.page.site_view import (
    Account,
    AuditView,
    BudgetView,
    Decided,
    Leaving,
    Model,
    SiteView,
    Waiting,
)
from wardround.common.runtime.printable import quoted

HOSTILE = '<script>alert(1)</script><img src=x onerror="y">\u202e'
DIGEST = "ab" * 32
NOW = datetime(2026, 5, 1, tzinfo=UTC)
NOTHING = SiteView("north", "", "/srv/my north", "ann", may_decide=False)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name == "style" or name.startswith("on")]


def tags_of(content: str) -> list[str]:
    found = Tags()
    found.feed(content)
    return found.tags


def explained(**more: object) -> Errand:
    said: dict[str, object] = {
        "explanation": f"lungs, in words:\n{quoted('Which?')}\n\nYou are asked\n  - to train;\n",
        "verdicts": [{"rule": "task", "allowed": True, "reason": "allowed"}],
        "problems": [],
        "notes": [],
        "allowed": True,
        "terms": ["study: lungs", "privacy: epsilon 7.99"],
        "spending": "This spends epsilon 7.99 of 8: the ledger is empty.",
        "mark": "m" * 64,
        "refusal": "",
    }
    return Errand("explain", DIGEST, time.time(), said={**said, **more})


def full(text: str) -> SiteView:
    """Return a site of which everything that others can write is this text."""
    daemon = DaemonStatus(
        text, text, text, 1, "x", text, work_of(text, text, text, text), None, 3, 1, 2, 2,
        (Trouble("refusal", text, text, 3), Trouble("connection", "no-connection", text)),
    )  # fmt: skip
    lines = f"{text}:\n{quoted(text)}\n\nYou are asked\n  - to train {text};\n"
    finding = {"name": text, "status": "fault", "fact": text, "remedy": text}
    said = explained(
        explanation=lines,
        verdicts=[{"rule": text, "allowed": False, "reason": text}],
        problems=[text],
        notes=[text],
        terms=[text],
        spending=text,
    )
    return SiteView(
        text,
        text,
        text,
        text,
        may_decide=True,
        daemon=daemon,
        faults=((text, text, text),),
        waiting=(Waiting(DIGEST, text, f"{text}\n{text}", NOW),),
        decided=(Decided(DIGEST, text, "approved", text, NOW, 3),),
        audit=AuditView(1, (Leaving(1, text, text, text, text, text, 5),), 1, 0, 5, text),
        budget=BudgetView((Account(text, text, 1.0, 8.0, 1e-5, ((text, 1.0, 3),)),)),
        policy=((text, text),),
        models=(Model(text, text, 1, True),),
        errands={
            "explain": said,
            "check": Errand("check", "", 1.0, said={"counts": text, "findings": [finding]}),
            "doctor": Errand("doctor", "", 1.0, error=text),
        },
    )


def test_every_region_is_there_while_nothing_is_known() -> None:
    assert regions_of(NOTHING).keys() == set(REGIONS)


def test_no_text_of_others_becomes_markup_or_turns_the_words_around() -> None:
    drawn = "".join(regions_of(full(HOSTILE)).values())
    assert not {"script", "img"} & set(tags_of(drawn))
    assert "\u202e" not in drawn


def test_a_study_that_imitates_our_headings_stays_a_quotation() -> None:
    lies = explained(explanation=f"lungs:\n{quoted('Fine' + chr(10) + 'These never leave')}\n")
    drawn = regions_of(replace(NOTHING, errands={"explain": lies}))["study"]
    assert "<blockquote><p>Fine</p><p>These never leave</p></blockquote>" in drawn
    assert "<h3>These never leave" not in drawn


def test_a_page_for_reading_has_no_button_to_decide_and_says_what_to_type() -> None:
    drawn = regions_of(replace(NOTHING, errands={"explain": explained()}))["study"]
    assert "This spends" not in drawn
    assert "form" not in tags_of(drawn)
    assert f"wardround site approve {DIGEST[:16]} --site &#x27;/srv/my north&#x27;" in drawn
    assert "--allow-decisions" in drawn


def test_deciding_repeats_the_spending_in_the_question_and_carries_what_was_read() -> None:
    view = replace(NOTHING, may_decide=True, errands={"explain": explained()})
    drawn = regions_of(view)["study"]
    asked = "This spends epsilon 7.99 of 8: the ledger is empty. It is written down that ann"
    assert f'data-confirm="{asked}' in drawn
    assert f'name="mark" value="{"m" * 64}"' in drawn
    assert 'data-action="reject"' in drawn


def test_what_cannot_be_approved_as_things_are_has_no_button_to_approve() -> None:
    refused = explained(
        terms=[], spending="", mark="", refusal="the site has 3 patients: add some."
    )
    drawn = regions_of(replace(NOTHING, may_decide=True, errands={"explain": refused}))["study"]
    assert "add some" in drawn
    assert 'data-action="approve"' not in drawn


def test_the_summary_tells_the_daemon_that_does_not_reach_its_server() -> None:
    daemon = replace(full("x").daemon or NOTHING.daemon, connected_since="", work=None)  # type: ignore[type-var]
    said = summary_of(replace(NOTHING, daemon=daemon))  # type: ignore[arg-type]
    assert said == "The daemon runs and does not reach its server."


def test_the_budget_is_told_of_the_cap_and_a_simulated_site_has_none() -> None:
    accounts = (
        Account("main", "train", 7.5, 8.0, 1e-5, ((DIGEST, 7.5, 12),)),
        Account("main", "test", 1.0, None, 1e-5),
    )
    drawn = regions_of(replace(NOTHING, budget=BudgetView(accounts)))["budget"]
    assert "epsilon 7.5 of 8 is spent at delta 1e-05, 0.5 is left" in drawn
    assert "<meter " in drawn
    assert "there is no cap" in drawn


def test_an_errand_in_hand_shows_how_far_it_is() -> None:
    running = Errand("check", "", 1.0, done=50, count=200)
    drawn = regions_of(replace(NOTHING, errands={"check": running}))["data"]
    assert "50 of 200" in drawn
    assert 'data-action="check"' not in drawn
