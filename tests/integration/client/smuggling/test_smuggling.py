"""A site whose training code tries to get an image out: nothing of it reaches the wire.

Every message that leaves the site's ClientApp is captured as bytes and searched for every image of
the site, and every row of one, in many encodings. What the guard cannot see stands at the end.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.hospitals.watched_ward import (
    NEUTRAL,
    UPDATES,
    Ward,
    as_float,
    first_name,
    image_like,
    leaks,
    on_the_wire,
    try_update,
)

from wardround.client.egress import repeated_refusals
from wardround.client.egress.way_out import WayOut
from wardround.client.session.session import SiteSession
from wardround.common.messages.replies import (
    SiteUpdate,
    unpack_refusal,
)
from wardround.common.security.audit_verification import read_log, verify_log
from wardround.common.security.signing_key import open_public_key


@pytest.mark.parametrize("name", UPDATES)
def test_no_image_leaves_in_an_update(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reply = try_update(ward, monkeypatch, name)
    assert leaks(ward, reply) == 0
    refusal = unpack_refusal(reply[1].content)
    if name in NEUTRAL:
        wire = on_the_wire(reply[1])
        packed = np.array(as_float(ward.secret)).tobytes()
        assert packed not in wire
        assert packed[::-1] not in wire
    else:
        assert refusal is not None
        assert (refusal.site, refusal.code, refusal.reason) == ("north", "guard", "")


def test_an_honest_site_answers_and_none_of_its_images_is_on_the_wire(ward: Ward) -> None:
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    assert all(unpack_refusal(reply.content) is None for reply in replies)


def test_all_that_was_said_and_refused_stands_in_the_audit_log(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_refusals, "_COUNTED", {})  # other tests are refused for this too
    before = len(list(read_log(ward.folder / "audit")))
    try_update(ward, monkeypatch, "extra array")
    entries = list(read_log(ward.folder / "audit"))[before:]
    assert [(e.event.kind, e.event.verdict) for e in entries] == [
        ("decision", "allow"),
        ("site-info", "allow"),
        ("refusal", "deny: guard"),
        ("evaluation", "allow"),
        ("evaluation", "allow"),
    ]
    assert all(entry.event.sha256 for entry in entries[1:])
    verify_log(ward.folder / "audit", open_public_key(ward.folder / "keys" / "site.pub"))


# --- The tests can fail, and what cannot be seen --------------------------------------------
def test_without_the_guard_the_image_is_found_on_the_wire(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WayOut, "check", lambda *arguments: None)
    for name in ("extra array", "wrong shape", "array's name", "site name", "digest", "run"):
        with monkeypatch.context() as patch:
            assert leaks(ward, try_update(ward, patch, name)) > 0, name


def test_code_that_is_installed_to_betray_can_hide_an_image_in_a_parameter(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no look at numbers can tell from training; the guard's docstring says so."""
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        update = honest(session, *asked)
        image = {first_name(update): image_like(update, ward.secret, torch.float32)}
        return replace(update, parameters={**update.parameters, **image})

    monkeypatch.setattr(SiteSession, "train", train)
    replies = ward.say_everything()
    assert unpack_refusal(replies[1].content) is None
    assert leaks(ward, replies) > 0
