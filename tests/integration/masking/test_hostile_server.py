"""Twelve ways of a server that wants more than a sum: each is refused, and audited by its name.

Each is tried on real hospitals: their client app, keys, policy and audit log. Where the server
needs a hospital on its side, it has that hospital's own signature. What the state machine refuses
beside these stands in ``tests/unit/common/privacy/secure_aggregation/test_hostile_server.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from tests.support.hostile.consortium import Consortium

from wardround.client.app import close_sessions
from wardround.client.site.folder import KEY_FOLDER
from wardround.common.messages.masking import AGREE, MASK, SHARE, UNMASK
from wardround.common.privacy.secure_aggregation.messages import (
    Agreement,
    MaskedNotice,
    hash_of,
    read_list,
    read_signed,
    sign,
    write_list,
)
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.security.signing_key import open_key

pytestmark = pytest.mark.attacks
FIVE = ("east", "north", "south", "west", "zenith")
VICTIM = "north"
Way = Callable[[Consortium], RecordDict]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    close_sessions()


def accomplice(five: Consortium, name: str) -> Ed25519PrivateKey:
    return open_key(five.folders[name] / KEY_FOLDER)


def roster_of(five: Consortium) -> Roster:
    return Roster.from_bytes(five.given[SHARE][VICTIM], five.identities)


def sent(five: Consortium, stage: str, given: bytes) -> RecordDict:
    return five.send(VICTIM, five.asked(stage, given))


def with_member(five: Consortium, key: Ed25519PrivateKey, **changes: object) -> RecordDict:
    """Send a roster in which the last site's part is another, signed with a key."""
    roster = roster_of(five.go(until=SHARE))
    other = replace(roster.members[-1], **changes)  # type: ignore[arg-type] # of any field
    signed = (*roster.signed[:-1], sign(other, key))
    return sent(five, SHARE, replace(roster, signed=signed).to_bytes())


def swapped_key(five: Consortium) -> RecordDict:
    return with_member(five, Ed25519PrivateKey.generate(), mask_key=bytes(range(32)))


def false_signature(five: Consortium) -> RecordDict:
    roster = roster_of(five.go(until=SHARE))
    spoilt = bytes([roster.signed[-1][0] ^ 1]) + roster.signed[-1][1:]
    return sent(five, SHARE, replace(roster, signed=(*roster.signed[:-1], spoilt)).to_bytes())


def smaller_roster(five: Consortium) -> RecordDict:
    roster = roster_of(five.go(until=SHARE))
    smaller = replace(roster, threshold=2, signed=roster.signed[:2])
    return sent(five, SHARE, smaller.to_bytes())


def threshold_of_one(five: Consortium) -> RecordDict:
    return sent(five, SHARE, replace(roster_of(five.go(until=SHARE)), threshold=1).to_bytes())


def notices_of(five: Consortium, names: tuple[str, ...]) -> bytes:
    notices = read_list(five.given[AGREE][VICTIM])
    read = {read_signed(MaskedNotice, one, five.identities).site: one for one in notices}
    return write_list(tuple(read[name] for name in names))


def both_shares(five: Consortium) -> RecordDict:
    five.go()  # it has told the share of zenith's own mask, and is now asked for its key's
    return sent(five, AGREE, notices_of(five, FIVE[:4]))


def replayed_round(five: Consortium) -> RecordDict:
    five.go()
    first, five.instruction = five.instruction, replace(five.instruction, round=2)
    five.train(VICTIM)
    return five.train(VICTIM, first)


def two_models(five: Consortium) -> RecordDict:
    about = roster_of(five.go(until=SHARE)).members[-1].context
    key = accomplice(five, FIVE[-1])
    roster = roster_of(five)
    other = replace(roster.members[-1], context=replace(about, model=bytes(32)))
    signed = (*roster.signed[:-1], sign(other, key))
    return sent(five, SHARE, replace(roster, signed=signed).to_bytes())


def dropped_honest_sites(five: Consortium) -> RecordDict:
    five.go(until=AGREE)
    return sent(five, AGREE, notices_of(five, FIVE[:3]))


def sum_of_one(five: Consortium) -> RecordDict:
    five.go(until=AGREE)
    return sent(five, AGREE, notices_of(five, (VICTIM,)))


def lying_site(five: Consortium) -> RecordDict:
    five.go(until=UNMASK)
    told = [read_signed(Agreement, one, five.identities) for one in read_list(of(five))]
    lies = [
        sign(replace(one, survivors=hash_of((b"others",))), accomplice(five, one.site))
        for one in told
        if one.site in FIVE[3:]
    ]
    honest = [sign(one, accomplice(five, one.site)) for one in told if one.site not in FIVE[3:]]
    return sent(five, UNMASK, write_list((*honest, *lies)))


def of(five: Consortium) -> bytes:
    return five.given[UNMASK][VICTIM]


def old_attempt(five: Consortium) -> RecordDict:
    five.train(VICTIM, replace(five.instruction, attempt=1))
    return five.train(VICTIM)


def changed_configuration(five: Consortium) -> RecordDict:
    roster = roster_of(five.go(until=SHARE))
    about = replace(roster.members[-1].context, configuration=bytes(32))
    other = sign(replace(roster.members[-1], context=about), accomplice(five, FIVE[-1]))
    return sent(five, SHARE, replace(roster, signed=(*roster.signed[:-1], other)).to_bytes())


@dataclass(frozen=True)
class Tried:
    way: Way
    audited: str


WAYS = {
    "a swapped key": Tried(swapped_key, "false-signature"),
    "a false signature": Tried(false_signature, "false-signature"),
    "a smaller roster": Tried(smaller_roster, "small-roster"),
    "a threshold of one": Tried(threshold_of_one, "low-threshold"),
    "both shares of a site": Tried(both_shares, "both-shares"),
    "a replayed round": Tried(replayed_round, "replayed-round"),
    "two models in one roster": Tried(two_models, "two-models"),
    "honest sites said to have dropped": Tried(dropped_honest_sites, "too-few-survivors"),
    "a sum of one": Tried(sum_of_one, "too-few-survivors"),
    "sites that lie about the survivors": Tried(lying_site, "too-few-agree"),
    "an attempt that is over": Tried(old_attempt, "old-attempt"),
    "a changed configuration": Tried(changed_configuration, "changed-configuration"),
}


@pytest.mark.parametrize("name", list(WAYS))
def test_a_hostile_server_gets_nothing_and_the_audit_log_names_what_it_tried(
    name: str, tmp_path: Path
) -> None:
    five = Consortium(tmp_path, FIVE)
    answer = WAYS[name].way(five)
    assert "masking" not in answer
    five.require_refused(VICTIM, answer, WAYS[name].audited)


def test_shares_are_asked_for_in_vain_where_one_site_got_another_model(tmp_path: Path) -> None:
    """S11: none of the honest sites seals a share for a roster with two models."""
    five = Consortium(tmp_path, FIVE)
    roster = roster_of(five.go(until=SHARE))
    about = replace(roster.members[-1].context, model=bytes(32))
    other = sign(replace(roster.members[-1], context=about), accomplice(five, FIVE[-1]))
    given = replace(roster, signed=(*roster.signed[:-1], other)).to_bytes()
    for name in FIVE[:-1]:
        five.require_refused(name, five.send(name, five.asked(SHARE, given)), "two-models")


def test_a_retry_after_the_sum_is_known_is_refused_by_every_site(tmp_path: Path) -> None:
    """S10: the same round under another roster would be a difference of two sums."""
    five = Consortium(tmp_path, FIVE)
    five.go().server.unmask()
    retry = replace(five.instruction, attempt=1)
    for name in FIVE:
        five.require_refused(name, five.train(name, retry), "masked-before")
        stage = five.asked(MASK, five.given[MASK][name], attempt=1)
        five.require_refused(name, five.send(name, stage), "other-round")
