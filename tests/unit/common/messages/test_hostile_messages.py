"""Every number and text of a message is checked once, where it is read."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from tests.support.hostile.messages import (
    STUDY,
    Mutation,
    attacks,
    drop_field,
    good_messages,
    is_plain,
    refusals_of,
    set_field,
    update_of,
)

from wardround.common.errors import WardroundError
from wardround.common.messages.instructions import unpack_instruction
from wardround.common.messages.replies import (
    unpack_refusal,
    unpack_site_info,
    unpack_update,
)

BAD_FIELDS = [
    *[("facts", "examinations", v) for v in (float("inf"), -50, float("nan"), 2**62, 10**400, 1.5)],
    *[("facts", "updates", v) for v in (float("inf"), -1, 2**62, [3])],
    *[("facts", "seconds", v) for v in (-1.0, float("inf"), float("nan"), 1e300)],
    *[("facts", "training-loss", v) for v in (float("inf"), float("nan"), 1e308)],
    *[("header", "round", v) for v in ("1", -1, 1.0, True, 2**62, 10**400)],
    *[("header", "attempt", v) for v in ("0", -1, float("inf"))],
    *[("header", "site", v) for v in (7, "", "a\x1b[2J", "a\u202eb", "\ud800", "x" * 10_000)],
    *[("header", "digest", v) for v in (7, "x" * 10_000, b"ab")],
    *[("header", "run", v) for v in (7, "a\x1b[2J", "x" * 10_000)],
    *[("header", "ledger", v) for v in (-3, "3", 10**400, 0.5)],
    *[("header", "ledger-head", v) for v in (7, "\x1b[2J", "x" * 10_000)],
]


@pytest.mark.parametrize(
    ("record", "key", "value"),
    [pytest.param(*bad, id=f"{bad[1]}-{n}") for n, bad in enumerate(BAD_FIELDS)],
)
def test_an_update_with_a_field_that_cannot_be_true_is_refused(
    record: str, key: str, value: object
) -> None:
    content = update_of()
    unpack_update(update_of(), STUDY)
    set_field(record, key, value)(content)
    with pytest.raises(WardroundError, match=key) as refused:
        unpack_update(content, STUDY)
    assert is_plain(str(refused.value))


@pytest.mark.parametrize("place", range(7))
def test_an_update_that_lacks_a_field_names_it(place: int) -> None:
    content = update_of()
    drop_field("header", place)(content)
    if place >= 5:
        unpack_update(content, STUDY)  # only a ledger may be absent
        return
    with pytest.raises(WardroundError, match=r"header/\w+ is missing"):
        unpack_update(content, STUDY)


@pytest.mark.parametrize(
    "value",
    [float("inf"), -50, 10**400, 2**62, "", ["x"] * 5_000],
    ids=["infinite", "negative", "endless", "large", "empty", "long"],
)
@pytest.mark.parametrize("key", ["examinations", "base", "notes", "wardround"])
def test_a_site_info_with_a_field_that_cannot_be_true_is_refused(key: str, value: object) -> None:
    content = good_messages()[3]
    set_field("header", key, value)(content)
    allowed = key == "base" and isinstance(value, int) and abs(value) < 1e100
    if allowed:
        unpack_site_info(content)
        return
    with pytest.raises(WardroundError, match=key):
        unpack_site_info(content)


def test_a_refusal_is_one_whatever_it_says_and_is_not_believed_beyond_a_known_word() -> None:
    content = good_messages()[4]
    for key in ("site", "code", "reason"):
        set_field("refusal", key, "late\x1b[2J" * 10_000)(content)
    refusal = unpack_refusal(content)
    assert refusal is not None
    assert refusal.code == "internal"
    assert is_plain(refusal.site)
    assert is_plain(refusal.reason)
    set_field("refusal", "code", "late")(content)
    refusal = unpack_refusal(content)
    assert refusal is not None
    assert refusal.code == "internal", "only the server says that a site is late"
    drop_field("refusal", 0)(content)
    assert unpack_refusal(content) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("round", -1),
        ("round", float("inf")),
        ("kept-round", -2),
        ("validate", 1),
        ("split", "x" * 10_000),
        ("run", "../../etc"),
        ("digest", 7),
        ("attempt", 2**62),
    ],
    ids=lambda value: str(value)[:12],
)
def test_an_instruction_with_a_field_that_cannot_be_true_is_refused(
    key: str, value: object
) -> None:
    content = good_messages()[5]
    set_field("instruction", key, value)(content)
    with pytest.raises(WardroundError, match=key):
        unpack_instruction(content)


@settings(max_examples=300, deadline=None)
@given(attack=attacks)
def test_whatever_a_message_holds_is_read_or_refused_in_words(attack: Sequence[Mutation]) -> None:
    for content in good_messages():
        for change in attack:
            change(content)
        refusals_of(content)
