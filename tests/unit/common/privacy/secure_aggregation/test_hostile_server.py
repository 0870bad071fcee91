"""A server that wants more than the sum: each way is refused with its name, and nothing is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from tests.support.hostile.masking import Masking, configuration, context, identity

from wardround.common.privacy.secure_aggregation.canonical import Writer
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.messages import (
    Advertisement,
    Agreement,
    MaskedNotice,
    SealedShares,
    hash_of,
    read_delivery,
    read_list,
    read_signed,
    sign,
    write_delivery,
    write_list,
)
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.site import agree, mask, share, unmask
from wardround.common.privacy.secure_aggregation.site_state import Party, SiteRound

VICTIM, OTHER = "site-00", "site-01"


@contextmanager
def refused(name: str) -> Iterator[None]:
    with pytest.raises(MaskingError) as caught:
        yield
    assert caught.value.refusal.value == name


def shared(masking: Masking, roster: bytes) -> None:
    """Send the victim a roster."""
    share(masking.rounds[VICTIM], masking.parties[VICTIM], roster, masking.configuration)


def changed(masking: Masking, site: str, by: str, **changes: object) -> bytes:
    """Return the roster with one site's advertisement changed, and signed by somebody."""
    known = masking.parties[VICTIM].known
    roster = Roster.from_bytes(masking.sent["roster"], known)
    signed = []
    for member, one in zip(roster.members, roster.signed, strict=True):
        other = replace(member, **changes)  # type: ignore[arg-type] # of any field
        signed.append(sign(other, identity(by)) if member.site == site else one)
    return replace(roster, signed=tuple(signed)).to_bytes()


# --- 1 and 2: keys and signatures
def test_a_swapped_key_of_another_site_is_refused() -> None:
    masking = Masking(4).up_to("share")
    theirs = bytes(range(32))
    with refused("false-signature"):
        shared(masking, changed(masking, OTHER, "the server", mask_key=theirs))


def test_a_swapped_key_of_the_site_itself_is_refused() -> None:
    masking = Masking(4).up_to("share")
    with refused("swapped-key"):
        # Even if it were signed with its own identity: it knows which keys it has made.
        shared(masking, changed(masking, VICTIM, VICTIM, channel_key=bytes(range(32))))


def test_a_false_signature_is_refused_at_every_bit_of_a_message() -> None:
    masking = Masking(3).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    numbers = np.random.default_rng(3)
    for _ in range(40):
        spoilt = bytearray(roster.signed[1])
        spoilt[numbers.integers(len(spoilt))] ^= 1 << int(numbers.integers(8))
        signed = (roster.signed[0], bytes(spoilt), roster.signed[2])
        with pytest.raises(MaskingError):
            shared(masking, replace(roster, signed=signed).to_bytes())


def test_a_site_that_nobody_knows_is_refused() -> None:
    masking = Masking(3).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    sybil = replace(roster.members[1], site="sybil")
    signed = (*roster.signed, sign(sybil, identity("sybil")))
    with refused("unknown-site"):
        shared(masking, replace(roster, signed=signed).to_bytes())


def test_a_site_named_twice_is_refused() -> None:
    masking = Masking(3).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    with refused("repeated-key"):
        shared(masking, replace(roster, signed=(*roster.signed, roster.signed[1])).to_bytes())


# --- 3 and 4: roster and threshold
def test_a_smaller_roster_than_three_is_refused() -> None:
    masking = Masking(5).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    with refused("small-roster"):
        shared(masking, replace(roster, threshold=2, signed=roster.signed[:2]).to_bytes())


def test_a_smaller_roster_than_study_or_hospital_ask_for_is_refused() -> None:
    masking = Masking(5).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    smaller = replace(roster, threshold=3, signed=roster.signed[:4]).to_bytes()
    shared(masking, smaller)
    masking.parties[VICTIM] = replace(masking.parties[VICTIM], smallest_roster=5)
    with refused("small-roster"):
        shared(masking, smaller)


@pytest.mark.parametrize("threshold", [0, 1, 3, 6])
def test_another_threshold_is_refused(threshold: int) -> None:
    masking = Masking(5).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    with refused("low-threshold"):
        shared(masking, replace(roster, threshold=threshold).to_bytes())


def test_a_second_roster_in_one_attempt_is_refused() -> None:
    masking = Masking(5).up_to("mask")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    with refused("other-roster"):
        shared(masking, replace(roster, threshold=3, signed=roster.signed[:4]).to_bytes())


def test_sites_that_got_two_rosters_cannot_open_each_others_shares() -> None:
    masking = Masking(5).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    larger = replace(roster, threshold=5).to_bytes()
    states = {}
    for name in masking.names:
        given = larger if name == VICTIM else masking.sent["roster"]
        party = masking.parties[name]
        states[name], masking.sent[name] = share(
            masking.rounds[name], party, given, masking.configuration
        )
    said = read_signed(SealedShares, masking.sent[OTHER], masking.parties[VICTIM].known)
    delivery = write_delivery(((OTHER, dict(said.sealed)[VICTIM]),))
    with refused("false-share"):
        mask(states[VICTIM], masking.parties[VICTIM], delivery, masking.plain[VICTIM])


# --- 5: both shares, and 8 to 10: survivors
def survivors(masking: Masking, names: list[str]) -> bytes:
    """Return the notices of some sites, as they have signed them."""
    found = []
    for one in read_list(masking.sent["survivors"]):
        notice = read_signed(MaskedNotice, one, masking.parties[VICTIM].known)
        if notice.site in names:
            found.append(one)
    return write_list(tuple(found))


def test_both_shares_of_a_site_are_never_told() -> None:
    masking = Masking(5).up_to("unmask")
    state, party = masking.rounds[VICTIM], masking.parties[VICTIM]
    unmask(state, party, masking.sent["agreements"])
    without = survivors(masking, masking.names[:4])  # site-04 is said to have dropped
    with refused("both-shares"):
        agree(state, party, without)


def test_the_same_survivors_in_another_order_are_not_agreed_on_twice() -> None:
    masking = Masking(5).up_to("unmask")
    notices = read_list(masking.sent["survivors"])
    with refused("second-survivors"):
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], write_list(notices[::-1]))


def test_shares_are_told_only_for_what_the_threshold_agreed_on() -> None:
    masking = Masking(5).up_to("agree")
    party = masking.parties[VICTIM]
    state, _ = agree(masking.rounds[VICTIM], party, survivors(masking, masking.names[:4]))
    masking.agree({VICTIM})  # the others were named all five
    with refused("too-few-agree"):
        unmask(state, party, masking.sent["agreements"])


def test_one_agreement_sent_four_times_is_one() -> None:
    masking = Masking(5).up_to("unmask")
    one = read_list(masking.sent["agreements"])[0]
    with refused("too-few-agree"):
        unmask(masking.rounds[VICTIM], masking.parties[VICTIM], write_list((one,) * 4))


def test_an_agreement_signed_by_the_server_is_refused() -> None:
    masking = Masking(5).up_to("unmask")
    known = masking.parties[VICTIM].known
    real = read_signed(Agreement, read_list(masking.sent["agreements"])[1], known)
    with refused("false-signature"):
        unmask(
            masking.rounds[VICTIM],
            masking.parties[VICTIM],
            write_list((sign(real, identity("the server")),)),
        )


def test_honest_sites_cannot_be_dropped_below_the_threshold() -> None:
    masking = Masking(10).up_to("agree")
    with refused("too-few-survivors"):
        agree(
            masking.rounds[VICTIM],
            masking.parties[VICTIM],
            survivors(masking, masking.names[:6]),
        )


def test_a_sum_of_one_is_refused() -> None:
    masking = Masking(3).up_to("agree")
    with refused("too-few-survivors"):
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], survivors(masking, [OTHER]))


def test_the_notice_of_one_site_sent_three_times_is_no_sum_of_three() -> None:
    masking = Masking(3).up_to("agree")
    one = read_list(survivors(masking, [OTHER]))[0]
    with refused("false-survivor"):
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], write_list((one,) * 3))


def test_a_survivor_who_has_not_masked_is_refused() -> None:
    masking = Masking(5).up_to("mask")
    gone = masking.names[4]
    masking.mask({gone})
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    invented = MaskedNotice(roster.digest, gone, bytes(32), bytes(32))
    real = read_list(masking.sent["survivors"])
    with refused("false-signature"):
        said = write_list((*real, sign(invented, identity("the server"))))
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], said)
    with refused("false-survivor"):  # signed by a site that is the server's own
        said = write_list((*real, sign(invented, identity(gone))))
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], said)


def test_a_site_that_lies_about_survivors_is_not_counted() -> None:
    masking = Masking(5).up_to("agree")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    liar = Agreement(roster.digest, OTHER, hash_of((b"others",)))
    with refused("false-survivor"):
        masking.server.take_agreement(sign(liar, identity(OTHER)))
    masking.agree({OTHER})
    assert (masking.unmask({OTHER}) == masking.plain_sum(masking.names)).all()


# --- 6, 11 and 12: what was before, and what is other
def test_a_replayed_round_is_refused() -> None:
    masking = Masking(3)
    with refused("replayed-round"):
        SiteRound.begin(replace(masking.context, round=2), masking.rounds[VICTIM])


def test_the_keys_of_a_replayed_round_are_refused() -> None:
    masking = Masking(3)
    masking.rounds[OTHER] = SiteRound.begin(replace(masking.context, round=2))
    with refused("replayed-round"):
        masking.advertise()
    masking = Masking(3).up_to("share")
    old = replace(masking.context, round=2)
    with refused("replayed-round"):
        shared(masking, changed(masking, OTHER, OTHER, context=old))


def test_an_old_attempt_is_refused() -> None:
    masking = Masking(3, attempt=2)
    with refused("old-attempt"):
        SiteRound.begin(replace(masking.context, attempt=1), masking.rounds[VICTIM])
    masking.advertise()
    old = replace(masking.context, attempt=1)
    with refused("old-attempt"):
        shared(masking, changed(masking, OTHER, OTHER, context=old))


def test_a_new_attempt_before_anything_was_masked_has_new_keys() -> None:
    masking = Masking(3).up_to("mask")
    later = SiteRound.begin(replace(masking.context, attempt=2), masking.rounds[VICTIM])
    assert later.mask_secret != masking.rounds[VICTIM].mask_secret
    assert not later.roster


def test_a_retry_of_a_round_that_was_masked_is_refused() -> None:
    for stage in ("agree", "unmask"):
        masking = Masking(3).up_to(stage)
        with refused("masked-before"):
            SiteRound.begin(replace(masking.context, attempt=2), masking.rounds[VICTIM])
    SiteRound.begin(replace(masking.context, round=4), masking.rounds[VICTIM])


def test_the_same_update_in_another_run_is_not_masked_under_another_roster() -> None:
    masking = Masking(3).up_to("agree")
    seen = [masking.rounds[VICTIM].update]
    again = Masking(3, attempt=2).up_to("mask")
    with refused("same-update"):
        mask(
            again.rounds[VICTIM],
            again.parties[VICTIM],
            again.delivered[VICTIM],
            masking.plain[VICTIM],
            seen,
        )


def test_another_update_is_not_masked_with_the_same_keys() -> None:
    masking = Masking(3).up_to("agree")
    with refused("other-update"):
        mask(
            masking.rounds[VICTIM],
            masking.parties[VICTIM],
            masking.delivered[VICTIM],
            masking.plain[VICTIM] + np.uint32(1),
        )


def test_other_shares_are_not_masked_with_the_same_keys() -> None:
    masking = Masking(5).up_to("agree")
    fewer = write_delivery(read_delivery(masking.delivered[VICTIM])[:3])
    with refused("other-roster"):
        mask(masking.rounds[VICTIM], masking.parties[VICTIM], fewer, masking.plain[VICTIM])


def test_too_few_shares_are_refused() -> None:
    masking = Masking(5).up_to("mask")
    fewer = write_delivery(read_delivery(masking.delivered[VICTIM])[:2])
    with refused("too-few-senders"):
        mask(masking.rounds[VICTIM], masking.parties[VICTIM], fewer, masking.plain[VICTIM])


def test_two_models_in_one_roster_give_no_share() -> None:
    masking = Masking(3).up_to("share")
    other = replace(masking.context, model=bytes(32))
    with refused("two-models"):
        shared(masking, changed(masking, OTHER, OTHER, context=other))
    assert not any(state.roster for state in masking.rounds.values())


def test_two_models_for_one_site_in_one_attempt_are_refused() -> None:
    masking = Masking(3)
    with refused("two-models"):
        SiteRound.begin(replace(masking.context, model=bytes(32)), masking.rounds[VICTIM])


def test_a_changed_configuration_is_refused() -> None:
    masking = Masking(3).up_to("share")
    state, party = masking.rounds[VICTIM], masking.parties[VICTIM]
    for asked in (configuration(6), configuration(5, Grid(4.0, 24, 100))):
        with refused("changed-configuration"):
            share(state, party, masking.sent["roster"], asked)
    other = context(configuration(6))
    with refused("changed-configuration"):
        shared(masking, changed(masking, OTHER, OTHER, context=other))


def test_another_study_and_another_run_are_refused() -> None:
    masking = Masking(3).up_to("share")
    for field, name in (("study", "other-study"), ("run", "other-run")):
        length = 64 if field == "study" else 32
        other = replace(masking.context, **{field: "c" * length})  # type: ignore[arg-type]
        with refused(name):
            shared(masking, changed(masking, OTHER, OTHER, context=other))


# --- the order of the stages, and what is no message
def test_no_stage_can_be_skipped() -> None:
    masking = Masking(3).up_to("share")
    state, party = masking.rounds[VICTIM], masking.parties[VICTIM]
    with refused("out-of-turn"):
        mask(state, party, write_delivery(()), masking.plain[VICTIM])
    masking.share()
    with refused("out-of-turn"):
        agree(masking.rounds[VICTIM], party, write_list(()))
    masking.mask()
    with refused("out-of-turn"):
        unmask(masking.rounds[VICTIM], party, write_list(()))


def test_shares_of_another_site_cannot_be_passed_off_as_somebodys() -> None:
    masking = Masking(4).up_to("mask")
    (first, sealed), (second, other), *rest = read_delivery(masking.delivered[VICTIM])
    party, state = masking.parties[VICTIM], masking.rounds[VICTIM]
    for forged in (
        ((first, other), (second, sealed), *rest),  # swapped
        ((first, sealed), (first, sealed), *rest),  # twice
        ((VICTIM, sealed), (second, other), *rest),  # reflected
    ):
        with refused("false-share"):
            mask(state, party, write_delivery(forged), masking.plain[VICTIM])


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x00" * 7, b"\xff" * 64, Writer().whole(2**40).done(), Writer().whole(3).done()],
)
def test_what_is_no_message_is_refused_in_every_stage(junk: bytes) -> None:
    masking = Masking(3).up_to("unmask")
    fresh = Masking(3)
    party = masking.parties[VICTIM]
    for send in (
        lambda: share(fresh.rounds[VICTIM], party, junk, masking.configuration),
        lambda: mask(Masking(3).up_to("mask").rounds[VICTIM], party, junk, masking.plain[VICTIM]),
        lambda: unmask(masking.rounds[VICTIM], party, junk),
        lambda: read_signed(Advertisement, junk, party.known),
    ):
        with pytest.raises(MaskingError):
            send()


def test_a_refused_message_leaves_the_round_as_it_was() -> None:
    masking = Masking(5).up_to("agree")
    with refused("too-few-survivors"):
        agree(masking.rounds[VICTIM], masking.parties[VICTIM], survivors(masking, [OTHER]))
    masking.agree()
    assert (masking.unmask() == masking.plain_sum(masking.names)).all()


# --- sites that want to spoil a round, at the server
def test_the_server_takes_nothing_twice_and_nothing_unsigned() -> None:
    masking = Masking(3).up_to("mask")
    party = masking.parties[VICTIM]
    state, notice, vector = mask(
        masking.rounds[VICTIM], party, masking.delivered[VICTIM], masking.plain[VICTIM]
    )
    with refused("false-signature"):
        masking.server.take_masked(notice, vector + np.uint32(1))
    masking.server.take_masked(notice, vector)
    with refused("out-of-turn"):
        masking.server.take_masked(notice, vector)
    assert state.update


def test_a_party_knows_its_own_signature() -> None:
    party = Party("alone", identity("alone"), {})
    assert set(party.known) == {"alone"}
