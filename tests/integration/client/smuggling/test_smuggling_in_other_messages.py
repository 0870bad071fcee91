"""Site info, evaluations, errors and logs of hostile code: no image leaves."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.hospitals.watched_ward import Pixels, Ward, as_count, as_float, leaks, text_of

from wardround.client.app import close_sessions
from wardround.client.session.session import SiteSession
from wardround.common.errors import DataError
from wardround.common.messages.instructions import (
    Instruction,
)
from wardround.common.messages.replies import (
    REFUSAL_CODES,
    SiteEvaluation,
    SiteInfo,
    SiteUpdate,
    unpack_refusal,
)
from wardround.common.metrics.sums import SiteValues

SITE_INFOS: dict[str, Callable[[SiteInfo, Pixels], SiteInfo]] = {
    "notes": lambda i, p: replace(i, notes=(text_of(p),)),
    "name": lambda i, p: replace(i, site=text_of(p)),
    "version": lambda i, p: replace(i, wardround=text_of(p)),
    "digest": lambda i, p: replace(i, digest=text_of(p)),
    "examinations": lambda i, p: replace(i, examinations=as_count(p)),
    "base": lambda i, p: replace(i, base=as_float(p)),
}


@pytest.mark.parametrize("name", SITE_INFOS)
def test_no_image_leaves_in_site_info(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    honest = SiteSession.describe

    def describe(session: SiteSession, standalone: bool = False) -> SiteInfo:
        return SITE_INFOS[name](honest(session, standalone), ward.secret)

    monkeypatch.setattr(SiteSession, "describe", describe)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    refused = unpack_refusal(replies[0].content) is not None
    assert refused == (name != "notes")  # notes are left out, the rest is refused


@pytest.mark.parametrize("field", ["metrics", "seconds", "site", "run"])
def test_no_image_leaves_in_an_evaluation(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    honest, secret = SiteSession.evaluate, ward.secret
    values: dict[str, object] = {
        "metrics": SiteValues(20, {"loss": as_float(secret)}),
        "seconds": as_float(secret),
        "site": text_of(secret),
        "run": secret.tobytes().hex(),
    }

    def evaluate(session: SiteSession, instruction: Instruction) -> SiteEvaluation:
        return replace(honest(session, instruction), **{field: values[field]})  # type: ignore[arg-type]

    monkeypatch.setattr(SiteSession, "evaluate", evaluate)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    if field != "seconds":
        assert all(unpack_refusal(reply.content) for reply in replies[2:])


@pytest.mark.parametrize("kind", [RuntimeError, DataError, KeyError, OSError])
def test_no_image_leaves_in_the_text_of_an_exception(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(*arguments: object) -> None:
        raise kind(text_of(ward.secret))

    for method in ("describe", "train", "evaluate"):
        monkeypatch.setattr(SiteSession, method, fail)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    for reply in replies:
        assert not reply.has_error()  # Flower would send the text
        refusal = unpack_refusal(reply.content)
        assert refusal is not None
        assert refusal.code == ("data" if kind is DataError else "internal")
        assert refusal.code in REFUSAL_CODES
        assert refusal.reason == ""


def test_no_image_leaves_in_the_name_of_an_exception(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = type(text_of(ward.secret), (Exception,), {})

    def fail(*arguments: object) -> None:
        raise named

    monkeypatch.setattr(SiteSession, "train", fail)
    assert leaks(ward, ward.say_everything()) == 0


def test_what_training_code_writes_to_a_log_or_prints_stays_at_the_site(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        for name in ("wardround.client", "flwr", ""):
            logging.getLogger(name).error("%s", text_of(ward.secret))
        print(text_of(ward.secret))  # noqa: T201 # the point of this test
        return honest(session, *asked)

    monkeypatch.setattr(SiteSession, "train", train)
    replies = ward.say_everything()
    assert leaks(ward, replies) == 0
    assert unpack_refusal(replies[1].content) is None


def test_a_site_that_renames_itself_after_an_image_says_nothing(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SiteSession.train

    def train(session: SiteSession, *asked: Any) -> SiteUpdate:
        settings = session.site.settings.model_copy(update={"name": text_of(ward.secret)})
        session.site = replace(session.site, settings=settings)
        return honest(session, *asked)

    monkeypatch.setattr(SiteSession, "train", train)
    try:
        assert leaks(ward, ward.say_everything()) == 0
    finally:
        close_sessions()
