"""The masked sum is the plain sum, whoever dropped out, and nothing below the sum is seen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hostile.masking import Masking

from wardround.common.privacy.secure_aggregation.context import least_threshold
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.messages import (
    Unmasking,
    read_delivery,
    read_signed,
    sign,
    write_delivery,
)
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.privacy.secure_aggregation.site import mask, unmask
from wardround.common.privacy.secure_aggregation.site_state import SiteRound


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_sum_is_exact_for_every_set_of_drop_outs_that_the_threshold_allows(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(3, 8))
    bits = data.draw(st.sampled_from([8, 24, 40]))
    masking = Masking(count, length=3, grid=Grid(8.0, bits, 100))
    allowed = count - least_threshold(count)
    order = data.draw(st.permutations(masking.names))
    cuts = sorted(data.draw(st.lists(st.integers(0, allowed), min_size=4, max_size=4)))
    before, after, agreeing, telling = (set(order[:cut]) for cut in cuts)
    masking.advertise()
    masking.share(before)
    masking.mask(after)
    masking.agree(agreeing)
    total = masking.unmask(telling)
    there = [name for name in masking.names if name not in after]
    assert (total == masking.plain_sum(there)).all()
    assert list(masking.server.survivors) == there


@pytest.mark.parametrize(
    ("sites", "threshold"), [(3, 3), (4, 3), (5, 4), (7, 5), (10, 7), (30, 21)]
)
def test_the_threshold_is_more_than_two_thirds(sites: int, threshold: int) -> None:
    assert least_threshold(sites) == threshold


def test_of_ten_sites_three_may_drop_and_not_four() -> None:
    masking = Masking(10).up_to("mask")
    gone = masking.names[:3]
    masking.mask(gone)
    masking.agree(gone)
    assert (masking.unmask(gone) == masking.plain_sum(masking.names[3:])).all()
    fewer = Masking(10).up_to("mask")
    with pytest.raises(MaskingError, match="too-few-survivors"):
        fewer.mask(fewer.names[:4])
    assert not any(state.told for state in fewer.rounds.values())  # nothing was revealed


def test_a_masked_vector_says_nothing_of_what_is_masked() -> None:
    masking = Masking(3, length=200_000).up_to("mask")
    masking.mask()
    for name in masking.names:
        plain = masking.plain[name].view("<i4").astype(float)
        masked = masking.masked[name].view("<i4").astype(float)
        assert abs(np.corrcoef(plain, masked)[0, 1]) < 0.02
        bits = np.unpackbits(masking.masked[name].view(np.uint8))
        assert abs(bits.mean() - 0.5) < 0.002


def test_two_rounds_of_one_site_have_masks_with_nothing_in_common() -> None:
    first, second = Masking(3, length=50_000), Masking(3, length=50_000, attempt=2)
    for masking in (first, second):
        masking.plain = {name: np.zeros(50_000, dtype="<u4") for name in masking.names}
        masking.up_to("mask").mask()
    difference = first.masked["site-00"] - second.masked["site-00"]
    assert abs(np.unpackbits(difference.view(np.uint8)).mean() - 0.5) < 0.005


def test_a_site_that_comes_back_with_its_state_goes_on_to_the_same_bytes() -> None:
    masking = Masking(3).up_to("agree")
    name = "site-01"
    kept = SiteRound.from_bytes(masking.rounds[name].to_bytes())
    assert kept == masking.rounds[name]
    after, _, vector = mask(
        kept, masking.parties[name], masking.delivered[name], masking.plain[name]
    )
    assert (vector == masking.masked[name]).all()
    assert after == masking.rounds[name]
    masking.rounds[name] = kept
    masking.agree()
    assert (masking.unmask() == masking.plain_sum(masking.names)).all()


def test_a_state_shows_no_secret_where_it_is_printed() -> None:
    state = Masking(3).rounds["site-00"]
    shown = repr(state)
    for secret in (state.mask_secret, state.channel_secret, state.self_seed, state.sharing_seed):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


def test_one_false_share_among_enough_does_not_spoil_the_sum() -> None:
    masking = Masking(5).up_to("unmask")
    for name in masking.names:
        party = masking.parties[name]
        _, said = unmask(masking.rounds[name], party, masking.sent["agreements"])
        if name == "site-00":
            told = read_signed(Unmasking, said, party.known)
            false = tuple((about, bytes(33)) for about, _ in told.seeds)
            said = sign(replace(told, seeds=false), party.key)
        masking.server.take_unmasking(said)
    assert (masking.server.unmask()[0].words == masking.plain_sum(masking.names)).all()


@pytest.mark.parametrize("liars", [["site-00"], ["site-00", "site-07", "site-14"]])
def test_false_shares_of_whoever_comes_first_do_not_spoil_the_sum_of_many(
    liars: list[str],
) -> None:
    masking = Masking(15).up_to("mask")
    gone = ["site-12"] if len(liars) == 1 else []
    masking.mask(gone)
    masking.agree(gone)
    for name in masking.names:
        if name in gone:
            continue
        party = masking.parties[name]
        _, said = unmask(masking.rounds[name], party, masking.sent["agreements"])
        if name in liars:
            told = read_signed(Unmasking, said, party.known)
            seeds, keys = (
                tuple((about, bytes(33)) for about, _ in some) for some in (told.seeds, told.keys)
            )
            said = sign(replace(told, seeds=seeds, keys=keys), party.key)
        masking.server.take_unmasking(said)
    there = [name for name in masking.names if name not in gone]
    assert (masking.server.unmask()[0].words == masking.plain_sum(there)).all()
    assert masking.server.false_tellers == set(liars)


def test_who_seals_a_share_that_nobody_can_open_is_named() -> None:
    masking = Masking(3).up_to("mask")
    given = masking.delivered["site-01"]
    shares = tuple(
        (name, bytes(len(sealed)) if name == "site-02" else sealed)
        for name, sealed in read_delivery(given)
    )
    state, party = masking.rounds["site-01"], masking.parties["site-01"]
    with pytest.raises(MaskingError, match=r"site-02 sealed.*false-share"):
        mask(state, party, write_delivery(shares), masking.plain["site-01"])


def test_too_many_false_shares_end_the_round_without_a_sum() -> None:
    masking = Masking(3).up_to("unmask")
    for name in masking.names:
        party = masking.parties[name]
        _, said = unmask(masking.rounds[name], party, masking.sent["agreements"])
        if name == "site-00":
            told = read_signed(Unmasking, said, party.known)
            false = tuple((about, bytes(33)) for about, _ in told.seeds)
            said = sign(replace(told, seeds=false), party.key)
        masking.server.take_unmasking(said)
    with pytest.raises(MaskingError, match="false-share"):
        masking.server.unmask()
