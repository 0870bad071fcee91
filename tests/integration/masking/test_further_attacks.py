"""What a hostile server may try of masked rounds beyond swapped keys and false rosters.

One hospital under two names, what was signed in another run, questions asked again after a restart,
stages of a measurement passed off as those of a round, and groups drawn until they suit.
"""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.hospitals.hospital import ask, write_policy
from tests.support.hostile.consortium import MASKED, Consortium
from tests.support.hostile.masking import Masking, identity

from wardround.client.app import close_sessions
from wardround.client.site.idle_masks import MASKING_FOLDER, WORDS_KEPT
from wardround.common.errors import DataError, InputError
from wardround.common.messages.instructions import EVALUATE
from wardround.common.messages.masking import AGREE, SHARE, UNMASK, unpack_said
from wardround.common.privacy.secure_aggregation.messages import (
    MaskedNotice,
    read_list,
    read_signed,
    write_list,
)
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.security.peer_card import PeerCard
from wardround.common.security.peers import PEERS_FILE, read_peers, require_new
from wardround.common.study.explain.secure_aggregation import isolation_chance

pytestmark = pytest.mark.attacks


# --- sites that are none
def test_one_key_spelt_twice_is_one_site(tmp_path: Path) -> None:
    key = identity("north").public_key().public_bytes_raw().hex()
    for other in (key.upper(), " ".join((key[:32], key[32:]))):
        (tmp_path / PEERS_FILE).write_text(json.dumps({"north": key, "south": other}))
        with pytest.raises(DataError):
            read_peers(tmp_path)


@pytest.mark.parametrize("name", ["North", "NORTH", "ｎｏｒｔｈ"])  # wide letters
def test_a_known_name_in_other_letters_is_not_taken_in(name: str) -> None:
    known = {"north": identity("north").public_key()}
    card = PeerCard(name, identity("sybil").public_key())
    with pytest.raises(InputError, match="in other letters"):
        require_new(known, card, None, is_new_key=False)


def test_sites_of_the_servers_that_nobody_took_in_are_in_no_roster(tmp_path: Path) -> None:
    three = Consortium(tmp_path).go(SHARE)
    peers = three.folders["north"] / PEERS_FILE
    said = json.loads(peers.read_text())
    peers.write_text(json.dumps({name: key for name, key in said.items() if name != "west"}))
    content = three.send("north", three.asked(SHARE, three.given[SHARE]["north"]))
    three.require_refused("north", content, "unknown-site")


# --- what was said before
def test_the_roster_of_another_run_is_refused(tmp_path: Path) -> None:
    three = Consortium(tmp_path).go(SHARE)
    stale = three.given[SHARE]["north"]
    three.instruction = replace(three.instruction, run="e" * 32)
    unpack_said(three.train("north"))
    content = three.send("north", three.asked(SHARE, stale))
    three.require_refused("north", content, "other-run")


def test_after_a_restart_the_same_question_has_the_same_answer_and_another_has_none(
    tmp_path: Path,
) -> None:
    five = Consortium(tmp_path, ("east", "north", "south", "up", "west")).go(UNMASK)
    asked = five.asked(UNMASK, five.given[UNMASK]["north"])
    told = unpack_said(five.send("north", asked)).signed
    close_sessions()
    assert unpack_said(five.send("north", asked)).signed == told
    notices = read_list(five.given[AGREE]["north"])
    fewer = [n for n in notices if read_signed(MaskedNotice, n, five.identities).site != "west"]
    close_sessions()
    content = five.send("north", five.asked(AGREE, write_list(tuple(fewer))))
    five.require_refused("north", content, "both-shares")
    content = five.send("north", five.asked(UNMASK, write_list(())))
    five.require_refused("north", content, "too-few-agree")


# --- a measurement is no round
def test_stages_of_a_round_are_none_of_a_measurement(tmp_path: Path) -> None:
    three = Consortium(tmp_path).go(SHARE)
    roster = three.given[SHARE]["north"]
    content = three.send("north", three.asked(SHARE, roster, measures=True))
    three.require_refused("north", content, "out-of-turn")
    measured = replace(three.instruction, round=three.instruction.round - 1)  # the same number
    unpack_said(ask(three.folders["north"], EVALUATE, measured, MASKED))
    content = three.send("north", three.asked(SHARE, roster, measures=True))
    three.require_refused("north", content, "changed-configuration")


def test_a_round_that_is_said_to_be_lost_does_not_tell_metrics_of_the_same_model_again(
    tmp_path: Path,
) -> None:
    """With other sites in the second sum, the difference would be those of one hospital."""
    three = Consortium(tmp_path)
    policy = {"metrics": '"sums"', "smallest_cell": "1", "approved": f'["{MASKED.digest}"]'}
    write_policy(three.folders["north"], **policy)
    found = []
    for number in (1, 2):
        unpack_said(three.train("north", replace(three.instruction, round=number)))
        kept = three.folders["north"] / MASKING_FOLDER / three.instruction.run / WORDS_KEPT
        words = np.frombuffer(kept.read_bytes(), dtype="<u8")
        found.append(three.layout.decode(words, three.instruction.parameters).counted.metrics)
    assert found[0] is not None
    assert found[1] is None


# --- groups
def test_how_often_a_hospital_is_alone_among_helpers_is_what_explain_says() -> None:
    masking = Masking(9, groups=3).up_to("share")
    roster = Roster.from_bytes(masking.sent["roster"], masking.parties["site-00"].known)
    helpers, alone, draws = {"site-07", "site-08"}, 0, 2000
    for _ in range(draws):
        coins = {name: os.urandom(32) for name in roster.names}
        signed = tuple(
            replace(member, coin_hash=hashlib.sha256(coins[member.site]).digest())
            for member in roster.members
        )
        groups = replace(roster, members=signed).groups(coins, 3)
        (own,) = (group for group in groups if "site-00" in group)
        alone += set(own) - {"site-00"} <= helpers
    assert alone / draws == pytest.approx(isolation_chance(9, 3, 2), abs=0.015)  # 1 in 28


def correlation_of_regrouped_sums(rounds: int, noise: float, seed: int = 0) -> float:
    """Return how well the sums of groups drawn anew tell how each site's update differs.

    Args:
        noise: Deviation of a round's update from the site's own mean, over how sites differ.
    """
    drawn = np.random.default_rng(seed)
    own = drawn.normal(size=(9, 200))
    rows, seen = [], []
    for _ in range(rounds):
        order = drawn.permutation(9)
        updates = own + noise * drawn.normal(size=own.shape)
        for group in (order[:3], order[3:6], order[6:]):
            rows.append(np.isin(np.arange(9), group).astype(float))
            seen.append(updates[group].sum(axis=0))
    found = np.linalg.lstsq(np.array(rows), np.array(seen), rcond=None)[0]
    return float(np.corrcoef((found - found.mean(0)).ravel(), (own - own.mean(0)).ravel())[0, 1])


def test_many_rounds_of_regrouped_sums_tell_what_is_each_hospitals_own() -> None:
    """Why the page says that groups cost more than the size of a group: this is not prevented."""
    assert correlation_of_regrouped_sums(rounds=1, noise=1.0) < 0.6
    assert correlation_of_regrouped_sums(rounds=40, noise=1.0) > 0.9
