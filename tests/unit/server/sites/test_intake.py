"""Whatever goes wrong while one site's reply is taken in is a short refusal of that site."""

import logging
import sqlite3

import pytest

from wardround.common.errors import ModelError
from wardround.server.sites.intake import RefusedReplyError, taking_in


def fail(error: Exception) -> None:
    raise error


def test_a_refusal_of_ours_keeps_its_words_short_and_without_control_characters() -> None:
    with pytest.raises(RefusedReplyError) as refused, taking_in("north"):
        fail(ModelError("the array 'a\x1b[2J\u202e' is unknown" + "x" * 10_000))
    assert str(refused.value).startswith("the array 'a?[2J?' is unknown")
    assert len(str(refused.value)) == 500


def test_an_unforeseen_error_is_a_refusal_and_its_place_is_logged_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(RefusedReplyError, match="ZeroDivisionError") as refused,
        taking_in("north"),
    ):
        fail(ZeroDivisionError("row of patient 0815\x1b[2J"))
    (line,) = caplog.messages
    assert "site=north error=ZeroDivisionError at=" in line
    assert "test_intake.py:" in line
    assert "0815" not in line + str(refused.value)


@pytest.mark.parametrize("error", [OSError("disk full"), sqlite3.OperationalError("locked")])
def test_what_only_the_servers_own_disk_can_do_wrong_is_no_sites_refusal(error: Exception) -> None:
    with pytest.raises(type(error)), taking_in("north"):
        fail(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_server_is_obeyed(error: type[BaseException]) -> None:
    with pytest.raises(error), taking_in("north"):
        raise error
