"""Sums of groups: each is exact, nobody chooses who is with whom, and none is too small."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hostile.masking import Masking

from wardround.common.privacy.secure_aggregation.messages import (
    SealedShares,
    read_coins,
    read_delivery,
    read_signed,
    sign,
    write_delivery,
)
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.site import mask, share
from wardround.common.privacy.secure_aggregation.site_state import SiteRound

VICTIM, OTHER = "site-00", "site-01"


def groups_of(masking: Masking) -> tuple[tuple[str, ...], ...]:
    """Return the groups as the victim draws them."""
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties[VICTIM].known)
    return roster.groups(read_coins(masking.delivered[VICTIM]), masking.groups)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_each_groups_sum_is_exact_and_one_with_too_few_left_is_told_to_nobody(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(9, 13))
    masking = Masking(count, length=3, groups=3).up_to("mask")
    gone = set(data.draw(st.permutations(masking.names))[: data.draw(st.integers(0, 2))])
    masking.mask(gone)
    masking.agree(gone)
    sums = masking.unmask_groups(gone)
    left = [tuple(n for n in group if n not in gone) for group in groups_of(masking)]
    assert [one.sites for one in sums] == [group for group in left if len(group) >= 3]
    for one in sums:
        assert (one.words == masking.plain_sum(one.sites)).all()


def test_every_site_draws_the_same_groups_whose_sizes_differ_by_one_at_most() -> None:
    masking = Masking(11, groups=3).up_to("mask")
    groups = groups_of(masking)
    assert sorted(len(group) for group in groups) == [3, 4, 4]
    assert sorted(name for group in groups for name in group) == masking.names
    for name in masking.names:
        roster = Roster.from_bytes(masking.sent["roster"], masking.parties[name].known)
        assert roster.groups(read_coins(masking.delivered[name]), 3) == groups


def test_another_attempt_and_another_round_draw_other_groups() -> None:
    drawn = {groups_of(Masking(12, groups=3).up_to("mask")) for _ in range(5)}
    assert len(drawn) > 1


def test_a_site_that_is_left_out_of_a_sum_keeps_its_shares() -> None:
    masking = Masking(9, groups=3).up_to("mask")
    group = next(group for group in groups_of(masking) if VICTIM not in group)
    masking.mask({group[0]})
    masking.agree({group[0]})
    masking.unmask_groups({group[0]})
    for name in (VICTIM, group[1]):
        told = masking.server._told[name]
        named = {site for site, _ in (*told.seeds, *told.keys)}
        assert not named & set(group)


def test_groups_that_would_be_too_small_are_refused_by_site_and_server() -> None:
    with pytest.raises(MaskingError, match="small-roster"):
        Masking(8, groups=3).up_to("share")
    eight, three = Masking(8).up_to("share"), Masking(8, groups=3)
    three.server = eight.server
    party, said = eight.parties[VICTIM], eight.sent["roster"]
    grouped = replace(eight.context, configuration=three.configuration.digest)
    for name in three.names:  # what a server makes of honest advertisements without its own check
        three.rounds[name] = SiteRound.begin(grouped)
    signed = tuple(
        sign(three.rounds[name].advertisement(three.parties[name]), three.parties[name].key)
        for name in three.names
    )
    roster = Roster.of(6, signed, party.known).to_bytes()
    assert roster != said
    with pytest.raises(MaskingError, match="small-group"):
        share(three.rounds[VICTIM], party, roster, three.configuration)


# --- a server that would like to choose
def test_a_coin_that_was_not_signed_beforehand_is_refused() -> None:
    masking = Masking(9, groups=3).up_to("mask")
    given = masking.delivered[VICTIM]
    for coins in (
        {**read_coins(given), OTHER: bytes(32)},
        {name: coin for name, coin in read_coins(given).items() if name != OTHER},
        {},
    ):
        forged = write_delivery(read_delivery(given), coins)
        with pytest.raises(MaskingError, match="false-coin"):
            mask(masking.rounds[VICTIM], masking.parties[VICTIM], forged, masking.plain[VICTIM])


def test_a_site_of_the_servers_that_tells_another_coin_ends_the_attempt() -> None:
    masking = Masking(9, groups=3).up_to("share")
    for name in masking.names:
        party = masking.parties[name]
        _, said = share(masking.rounds[name], party, masking.sent["roster"], masking.configuration)
        if name == OTHER:
            told = read_signed(SealedShares, said, party.known)
            said = sign(replace(told, coin=bytes(32)), party.key)
        masking.server.take_shares(said)
    with pytest.raises(MaskingError, match="false-coin"):
        masking.server.close_shares()
    assert not masking.server.may_be_masked


def test_no_site_can_be_left_out_once_the_coins_are_told() -> None:
    """Who chooses whose shares came could choose among groupings."""
    masking = Masking(9, groups=3).up_to("share")
    with pytest.raises(MaskingError, match="8 of 9 sites have sent shares and 9 must"):
        masking.share({OTHER})
    whole = Masking(9, groups=3).up_to("mask")
    given = whole.delivered[VICTIM]
    fewer = tuple(pair for pair in read_delivery(given) if pair[0] != OTHER)
    forged = write_delivery(fewer, read_coins(given))
    with pytest.raises(MaskingError, match="too-few-senders"):
        mask(whole.rounds[VICTIM], whole.parties[VICTIM], forged, whole.plain[VICTIM])


def test_groups_are_drawn_three_times_a_round_and_not_until_one_suits() -> None:
    Masking(9, groups=3, attempt=2).up_to("mask")
    with pytest.raises(MaskingError, match="too-many-draws"):
        Masking(9, groups=3, attempt=3).up_to("mask")


def test_a_group_of_the_victim_alone_cannot_be_unmasked_by_saying_that_the_others_left() -> None:
    masking = Masking(9, groups=3).up_to("mask")
    group = next(group for group in groups_of(masking) if VICTIM in group)
    others = set(group) - {VICTIM}
    masking.mask(others)  # the server says that two of the three dropped out
    masking.agree(others)
    assert all(VICTIM not in one.sites for one in masking.unmask_groups(others))
    assert len(masking.server._told) == 7


def test_the_number_of_groups_is_part_of_what_all_sign() -> None:
    masking = Masking(9, groups=3).up_to("share")
    party, other = masking.parties[VICTIM], Masking(9, groups=1).configuration
    with pytest.raises(MaskingError, match="changed-configuration"):
        share(masking.rounds[VICTIM], party, masking.sent["roster"], other)


def test_a_site_goes_on_in_its_group_after_a_restart() -> None:
    masking = Masking(9, groups=3).up_to("agree")
    kept = SiteRound.from_bytes(masking.rounds[VICTIM].to_bytes())
    assert kept == masking.rounds[VICTIM]
    again = mask(kept, masking.parties[VICTIM], masking.delivered[VICTIM], masking.plain[VICTIM])
    assert (again[2] == masking.masked[VICTIM]).all()
