"""A site's half of the protocol: each message in, the next message out, and no way back.

A state is written down before its message is sent (the caller does that). The same question again
has the same answer; any other question of a stage that was answered is refused, so nothing is
masked twice, and of a site either its seed's share is told or its key's, never both.
"""

import hashlib
from collections.abc import Collection
from dataclasses import replace

from wardround.common.privacy.secure_aggregation.context import (
    MOST_ATTEMPTS,
    SMALLEST_ROSTER,
    Configuration,
)
from wardround.common.privacy.secure_aggregation.keys import open_sealed, seal
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.messages import (
    Agreement,
    MaskedNotice,
    SealedShares,
    Unmasking,
    hash_of,
    hash_of_names,
    read_coins,
    read_delivery,
    read_list,
    read_signed,
    sign,
)
from wardround.common.privacy.secure_aggregation.pairs import (
    about,
    add_own_mask,
    add_pair_mask,
    channel_key,
)
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.sharing import SHARE_BYTES
from wardround.common.privacy.secure_aggregation.site_state import Party, SiteRound


def advertise(state: SiteRound, party: Party) -> bytes:
    """Stage 1: return the site's signed keys."""
    return sign(state.advertisement(party), party.key)


def share(
    state: SiteRound, party: Party, given: bytes, configuration: Configuration
) -> tuple[SiteRound, bytes]:
    """Stage 2: accept a roster, and return the site's shares, each sealed for one other.

    Args:
        given: The roster.

    Raises:
        MaskingError: The roster is not sound, does not hold this site's own keys, or another
            was accepted.
    """
    _require_open(state)
    if state.roster and state.roster != given:
        refuse(Refusal.OTHER_ROSTER, "a second roster was sent for one attempt")
    roster = Roster.from_bytes(given, party.known)
    smallest = max(configuration.smallest_roster, party.smallest_roster)
    if configuration.digest != state.context.configuration:
        refuse(Refusal.CHANGED_CONFIGURATION, "the configuration is not the advertised one")
    roster.require_sound(state.context, smallest, configuration.grid.most_sites)
    if configuration.groups > 1:
        _require_groups(state, roster, configuration)
    if roster.member(party.site) != state.advertisement(party):
        refuse(Refusal.SWAPPED_KEY, "the roster holds other keys of this site than its own")
    pairs = state.own_shares(roster)
    sealed = []
    for index, other in enumerate(roster.names):
        if other != party.site:
            key = channel_key(roster, state.channel_secret, party.site, other, party.site)
            place = about(roster, party.site, other)
            sealed.append((other, seal(key, pairs[index], place)))
    coin = state.coin if configuration.groups > 1 else b""
    said = SealedShares(roster.digest, party.site, tuple(sealed), coin)
    groups, smallest = configuration.groups, configuration.smallest_group
    after = replace(state, roster=given, groups=groups, smallest_group=smallest)
    return after, sign(said, party.key)


def mask(
    state: SiteRound,
    party: Party,
    given: bytes,
    words: Words,
    masked_before: Collection[bytes] = (),
) -> tuple[SiteRound, bytes, Words]:
    """Stage 3: accept the others' shares, and return the notice and the masked vector.

    Args:
        given: The sealed shares of the others, from :func:`write_delivery`.
        words: ``(d,)``, not changed.
        masked_before: SHA-256 of updates that were masked in other runs.

    Raises:
        MaskingError: Shares are too few or false, or others were accepted, or another update
            was masked with these keys, or this update with others.
    """
    roster = _accepted(state, party)
    if state.delivered and state.delivered != given:
        refuse(Refusal.OTHER_ROSTER, "other shares were sent for one attempt")
    digest = hashlib.sha256(words.tobytes()).digest()
    if state.update and state.update != digest:
        refuse(Refusal.OTHER_UPDATE, "another update was masked with these keys")
    if not state.update and digest in masked_before:
        refuse(Refusal.SAME_UPDATE, "this very update was masked under another roster")
    senders = tuple(sorted([party.site, *_held(state, party, roster, given)]))
    group = next(one for one in _groups(state, roster, given) if party.site in one)
    about_senders = hash_of_names(senders)
    masked = words.copy()
    add_own_mask(masked, roster, about_senders, state.self_seed, party.site)
    for other in senders:
        if other != party.site and other in group:
            add_pair_mask(masked, roster, about_senders, state.mask_secret, party.site, other)
    vector = hashlib.sha256(masked.tobytes()).digest()
    notice = MaskedNotice(roster.digest, party.site, about_senders, vector)
    after = replace(state, delivered=given, update=digest)
    return after, sign(notice, party.key), masked


def agree(state: SiteRound, party: Party, given: bytes) -> tuple[SiteRound, bytes]:
    """Stage 4: accept who survived, once, and return the site's signature of it.

    Args:
        given: The notices of the survivors.

    Raises:
        MaskingError: They are too few, one is false, or another set was agreed on.
    """
    roster = _accepted(state, party)
    survivors = _survivors(state, party, roster, given)
    if state.survivors and state.survivors != given:
        before = _survivors(state, party, roster, state.survivors)
        if set(before) != set(survivors):
            refuse(
                Refusal.BOTH_SHARES,
                "a second set of survivors would tell both shares of a site",
            )
        refuse(Refusal.SECOND_SURVIVORS, "a second set of survivors was sent")
    said = Agreement(roster.digest, party.site, hash_of(read_list(given)))
    return replace(state, survivors=given), sign(said, party.key)


def unmask(state: SiteRound, party: Party, given: bytes) -> tuple[SiteRound, bytes]:
    """Stage 5: check that enough sites agree, and return one share of each other site.

    Args:
        given: The agreements.

    Raises:
        MaskingError: Fewer than the threshold agree on what this site agreed on.
    """
    roster = _accepted(state, party)
    if not state.survivors:
        refuse(Refusal.OUT_OF_TURN, "shares are asked for before survivors were named")
    agreed = hash_of(read_list(state.survivors))
    _require_agreed(party, roster, agreed, given)
    survivors = set(_survivors(state, party, roster, state.survivors))
    groups = _groups(state, roster, state.delivered)
    summed = names_summed(groups, survivors, state.smallest_group)
    seeds, keys = [], []
    for other, pair in _held(state, party, roster, state.delivered).items():
        if other not in summed:
            continue
        if other in survivors:
            seeds.append((other, pair[SHARE_BYTES:]))
        else:
            keys.append((other, pair[:SHARE_BYTES]))
    own = state.own_shares(roster)[roster.point(party.site) - 1]
    if party.site in survivors & summed:
        seeds.append((party.site, own[SHARE_BYTES:]))
    said = Unmasking(roster.digest, party.site, agreed, tuple(seeds), tuple(keys))
    return replace(state, told=True), sign(said, party.key)


def names_summed(
    groups: Collection[tuple[str, ...]], survivors: Collection[str], smallest: int
) -> set[str]:
    """Return the sites of all groups that have enough survivors for a sum; none of the others."""
    return {
        name
        for group in groups
        if sum(one in survivors for one in group) >= smallest
        for name in group
    }


def _require_groups(state: SiteRound, roster: Roster, configuration: Configuration) -> None:
    """Check that groups would be large enough, and are not drawn until somebody likes them.

    Raises:
        MaskingError: They are not, or this attempt is one too many.
    """
    smallest = len(roster.members) // configuration.groups
    if smallest < max(configuration.smallest_group, SMALLEST_ROSTER):
        refuse(
            Refusal.SMALL_GROUP,
            f"{len(roster.members)} sites in {configuration.groups} groups are {smallest} in the "
            f"smallest, and must be {configuration.smallest_group}",
        )
    if state.context.attempt >= MOST_ATTEMPTS:
        refuse(
            Refusal.TOO_MANY_DRAWS,
            f"groups would be drawn for the {state.context.attempt + 1}th time in one round, and "
            f"are at most {MOST_ATTEMPTS} times",
        )


def _groups(state: SiteRound, roster: Roster, given: bytes) -> tuple[tuple[str, ...], ...]:
    """Return the groups that the coins of a delivery draw.

    Raises:
        MaskingError: One is missing or false.
    """
    return roster.groups(read_coins(given), state.groups)


def _require_agreed(party: Party, roster: Roster, agreed: bytes, given: bytes) -> None:
    """Check that enough sites have agreed on the same survivors as this one.

    Args:
        agreed: The hash of the survivors' notices.
        given: The agreements.

    Raises:
        MaskingError: Fewer than the threshold have.
    """
    agreeing = set()
    for one in read_list(given):
        agreement = read_signed(Agreement, one, party.known)
        roster.member(agreement.site)
        if (agreement.roster, agreement.survivors) == (roster.digest, agreed):
            agreeing.add(agreement.site)
    if len(agreeing) < roster.threshold:
        refuse(
            Refusal.TOO_FEW_AGREE,
            f"{len(agreeing)} sites agree on the survivors, and {roster.threshold} must",
        )


def _accepted(state: SiteRound, party: Party) -> Roster:
    _require_open(state)
    if not state.roster:
        refuse(Refusal.OUT_OF_TURN, "a stage is asked for before there is a roster")
    return Roster.from_bytes(state.roster, party.known)


def _require_open(state: SiteRound) -> None:
    if state.is_over:
        refuse(Refusal.REPLAYED_ROUND, "this attempt is over, and its keys are erased")


def _held(state: SiteRound, party: Party, roster: Roster, given: bytes) -> dict[str, bytes]:
    """Return the pair of shares that each other site has sent to this one.

    Raises:
        MaskingError: One cannot be opened, or they are too few.
    """
    held = {}
    for sender, sealed in read_delivery(given):
        if sender == party.site or sender in held:
            refuse(Refusal.FALSE_SHARE, "the shares of a site came twice, or are its own")
        key = channel_key(roster, state.channel_secret, sender, party.site, party.site)
        held[sender] = open_sealed(key, sealed, about(roster, sender, party.site), sender)
    needed = roster.threshold if state.groups == 1 else len(roster.members)
    if len(held) + 1 < needed:
        refuse(
            Refusal.TOO_FEW_SENDERS,
            f"{len(held) + 1} sites have sent shares, and {needed} must",
        )
    return held


def _survivors(state: SiteRound, party: Party, roster: Roster, given: bytes) -> tuple[str, ...]:
    """Return who survived, by their own notices.

    Raises:
        MaskingError: They are too few, or a notice is not of this masking.
    """
    if not state.update:
        refuse(Refusal.OUT_OF_TURN, "survivors are named before anything was masked")
    held = {sender for sender, _ in read_delivery(state.delivered)} | {party.site}
    senders, found = hash_of_names(tuple(sorted(held))), list[str]()
    for one in read_list(given):
        notice = read_signed(MaskedNotice, one, party.known)
        right = (notice.roster, notice.senders) == (roster.digest, senders)
        if not right or notice.site not in held or notice.site in found:
            refuse(Refusal.FALSE_SURVIVOR, f"{notice.site} has not masked with these sites")
        found.append(notice.site)
    if len(found) < roster.threshold:
        refuse(
            Refusal.TOO_FEW_SURVIVORS,
            f"the sum would be of {len(found)} sites, and must be of {roster.threshold}",
        )
    return tuple(found)
