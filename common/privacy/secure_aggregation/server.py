"""The server's half of the protocol: messages in, messages out, and at the end the sum.

The server can do nothing with what it holds but what it is written to do: the sites check all of
it. What it checks itself is what a site could spoil: signatures, sizes, and shares.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from wardround.common.privacy.secure_aggregation.context import (
    Configuration,
    Context,
    least_threshold,
)
from wardround.common.privacy.secure_aggregation.masks import WORD_TYPES, Words
from wardround.common.privacy.secure_aggregation.messages import (
    Advertisement,
    Agreement,
    Identities,
    MaskedNotice,
    SealedShares,
    Unmasking,
    hash_of,
    hash_of_names,
    read_signed,
    write_delivery,
    write_list,
)
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.unmasking import Shares, take_masks_away


class Stage(StrEnum):
    """What the server waits for; a message of another stage is refused."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    AGREE = "agree"
    UNMASK = "unmask"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class GroupSum:
    """The sum of one group, which is all sites where there are no groups.

    Attributes:
        sites: Whose vectors are in it.
        words: ``(d,)``.
    """

    sites: tuple[str, ...]
    words: Words


class _OfARoster(Protocol):
    @property
    def roster(self) -> bytes:
        """The hash of the roster that a message is of."""

    @property
    def site(self) -> str:
        """Who sent it."""


class ServerRound:
    """One attempt at one round, in memory: one that is restarted asks everything again.

    A site that stood in the same attempt answers the same, so the sum is then the same too.

    Args:
        context: With the model that the server has sent.
        configuration: Says how long a vector is, and its words.
        identities: The keys of the sites that may take part.
        fewest_groups: With fewer that are large enough nothing is unmasked.
    """

    def __init__(
        self,
        context: Context,
        configuration: Configuration,
        identities: Identities,
        fewest_groups: int = 1,
    ) -> None:
        self._fewest_groups = fewest_groups
        self._context = context
        self._configuration = configuration
        self._identities = identities
        self.stage = Stage.ADVERTISE
        self._advertised: dict[str, bytes] = {}
        self._shares: dict[str, SealedShares] = {}
        self._notices: dict[str, bytes] = {}
        self._agreements: dict[str, bytes] = {}
        self._told: dict[str, Unmasking] = {}
        word = WORD_TYPES[configuration.grid.word_bits]
        self._sums: list[Words] = [
            np.zeros(configuration.length, dtype=word) for _ in range(configuration.groups)
        ]
        self._groups: tuple[tuple[str, ...], ...] = ()
        self._roster: Roster | None = None
        self.false_tellers: set[str] = set()

    @property
    def may_be_masked(self) -> bool:
        """Whether a site may have masked its update, so that the round is over for it."""
        return self.stage not in (Stage.ADVERTISE, Stage.SHARE)

    @property
    def survivors(self) -> tuple[str, ...]:
        """The sites whose vectors are in the sum."""
        return tuple(sorted(self._notices))

    @property
    def dropped(self) -> tuple[str, ...]:
        """The sites that sent shares and no vector."""
        return tuple(sorted(set(self._shares) - set(self._notices)))

    def take_advertisement(self, signed: bytes) -> None:
        """Take in a site's keys.

        Raises:
            MaskingError: They are not signed, are of something else, or came before.
        """
        self._require(Stage.ADVERTISE)
        said = read_signed(Advertisement, signed, self._identities)
        self._context.require_same(said.context, said.site)
        _once(said.site, self._advertised)
        self._advertised[said.site] = signed

    def close_roster(self) -> bytes:
        """Return the roster of all who have advertised, with the least threshold.

        Raises:
            MaskingError: They are too few.
        """
        self._require(Stage.ADVERTISE)
        threshold = least_threshold(len(self._advertised))
        roster = Roster.of(threshold, tuple(self._advertised.values()), self._identities)
        grid, smallest = self._configuration.grid, self._configuration.smallest_roster
        smallest = max(smallest, self._configuration.groups * self._configuration.smallest_group)
        roster.require_sound(self._context, smallest, grid.most_sites)
        self._roster, self.stage = roster, Stage.SHARE
        return roster.to_bytes()

    def take_shares(self, signed: bytes) -> None:
        """Take in a site's sealed shares, one for each other site of the roster.

        Raises:
            MaskingError: They are not, or came before.
        """
        self._require(Stage.SHARE)
        said = read_signed(SealedShares, signed, self._identities)
        roster = self._of_roster(said)
        others = [name for name in roster.names if name != said.site]
        if [name for name, _ in said.sealed] != others:
            refuse(Refusal.FALSE_SHARE, f"the shares of {said.site} are not for all others")
        _once(said.site, self._shares)
        self._shares[said.site] = said

    def close_shares(self) -> dict[str, bytes]:
        """Return what each site that has sent shares gets of the others'.

        Raises:
            MaskingError: Fewer than the threshold have sent any; or, of sites in groups, not all.
        """
        roster = self._open(Stage.SHARE)
        count, coins = self._configuration.groups, dict[str, bytes]()
        needed = roster.threshold if count == 1 else len(roster.members)
        what = Refusal.TOO_FEW_SENDERS, "have sent shares"
        self._require_enough(roster, self._shares, *what, needed=needed)
        if count > 1:
            coins = {name: said.coin for name, said in self._shares.items()}
        self._groups = roster.groups(coins, count)
        self.stage = Stage.MASK
        senders = sorted(self._shares)
        sealed = {name: dict(self._shares[name].sealed) for name in senders}
        return {
            receiver: write_delivery(
                tuple((name, sealed[name][receiver]) for name in senders if name != receiver), coins
            )
            for receiver in senders
        }

    def take_masked(self, signed: bytes, vector: Words) -> None:
        """Add a site's masked vector to the sum.

        Args:
            signed: What the site signed of it.
            vector: ``(d,)`` words, as many as every site of its group sends.

        Raises:
            MaskingError: It is not the one that the site has signed, or came before.
        """
        self._require(Stage.MASK)
        notice = read_signed(MaskedNotice, signed, self._identities)
        self._of_roster(notice)
        if notice.site not in self._shares:
            refuse(Refusal.OUT_OF_TURN, f"{notice.site} has sent no shares")
        _once(notice.site, self._notices)
        total = self._sums[self._group_of(notice.site)]
        if (vector.dtype, vector.shape) != (total.dtype, total.shape):
            refuse(Refusal.MALFORMED, f"the vector of {notice.site} has another shape or word")
        if hashlib.sha256(vector.tobytes()).digest() != notice.vector:
            refuse(Refusal.FALSE_SIGNATURE, f"the vector of {notice.site} is not what it signed")
        if notice.senders != self._senders():
            refuse(Refusal.OTHER_ROSTER, f"{notice.site} has masked with other sites")
        np.add(total, vector, out=total)
        self._notices[notice.site] = signed

    def close_masked(self) -> bytes:
        """Return the survivors' notices.

        Raises:
            MaskingError: They are fewer than the threshold, or too few groups have enough of them.
        """
        roster = self._open(Stage.MASK)
        self._require_enough(roster, self._notices, Refusal.TOO_FEW_SURVIVORS, "have masked")
        if len(self._summed()) < self._fewest_groups:
            refuse(
                Refusal.TOO_FEW_SURVIVORS,
                f"{len(self._summed())} of {len(self._groups)} groups have enough sites left, and "
                f"{self._fewest_groups} must",
            )
        self.stage = Stage.AGREE
        return self._named()

    def take_agreement(self, signed: bytes) -> None:
        """Take in a site's agreement on the survivors.

        Raises:
            MaskingError: It is not signed, is of other survivors, or came before.
        """
        self._require(Stage.AGREE)
        said = read_signed(Agreement, signed, self._identities)
        self._of_roster(said)
        if said.survivors != self._agreed():
            refuse(Refusal.FALSE_SURVIVOR, f"{said.site} agrees on other survivors")
        _once(said.site, self._agreements)
        self._agreements[said.site] = signed

    def close_agreements(self) -> bytes:
        """Return the agreements.

        Raises:
            MaskingError: They are fewer than the threshold.
        """
        roster = self._open(Stage.AGREE)
        self._require_enough(roster, self._agreements, Refusal.TOO_FEW_AGREE, "agree")
        self.stage = Stage.UNMASK
        return write_list(tuple(self._agreements[name] for name in sorted(self._agreements)))

    def take_unmasking(self, signed: bytes) -> None:
        """Take in the shares that a site tells.

        Raises:
            MaskingError: They are not of these survivors, or came before.
        """
        self._require(Stage.UNMASK)
        said = read_signed(Unmasking, signed, self._identities)
        self._of_roster(said)
        seeds, keys = {name for name, _ in said.seeds}, {name for name, _ in said.keys}
        survivors, dropped = set(self._notices), set(self._shares) - set(self._notices)
        if said.survivors != self._agreed() or not (seeds <= survivors and keys <= dropped):
            refuse(Refusal.FALSE_SHARE, f"{said.site} tells shares of other survivors")
        _once(said.site, self._told)
        self._told[said.site] = said

    def unmask(self) -> tuple[GroupSum, ...]:
        """Return the sum of each group that has enough survivors; mostly one, of all of them.

        Raises:
            MaskingError: Too few shares were told, or they are false.
        """
        roster = self._open(Stage.UNMASK)
        self._require_enough(roster, self._told, Refusal.TOO_FEW_AGREE, "have told shares")
        found = []
        for index in self._summed():
            group, total = self._groups[index], self._sums[index]
            there = tuple(name for name in self.survivors if name in group)
            gone = [name for name in self.dropped if name in group]
            shares = Shares(
                {name: self._points(roster, name, of_seeds=True) for name in there},
                {name: self._points(roster, name, of_seeds=False) for name in gone},
            )
            self.false_tellers |= take_masks_away(total, roster, self._senders(), shares)
            found.append(GroupSum(there, total))
        self.stage = Stage.DONE
        return tuple(found)

    def _group_of(self, site: str) -> int:
        return next(index for index, group in enumerate(self._groups) if site in group)

    def _summed(self) -> list[int]:
        """Return the groups that have enough survivors for a sum."""
        smallest = self._configuration.smallest_group
        return [
            index
            for index, group in enumerate(self._groups)
            if sum(name in self._notices for name in group) >= smallest
        ]

    def _points(self, roster: Roster, about: str, of_seeds: bool) -> dict[int, bytes]:
        found = {}
        for teller, said in self._told.items():
            share = dict(said.seeds if of_seeds else said.keys).get(about)
            if share is not None:
                found[roster.point(teller)] = share
        return found

    def _named(self) -> bytes:
        return write_list(tuple(self._notices[name] for name in self.survivors))

    def _agreed(self) -> bytes:
        return hash_of(tuple(self._notices[name] for name in self.survivors))

    def _senders(self) -> bytes:
        return hash_of_names(tuple(sorted(self._shares)))

    def _require(self, stage: Stage) -> None:
        if self.stage is not stage:
            refuse(Refusal.OUT_OF_TURN, f"a message of stage {stage} came in stage {self.stage}")

    def _open(self, stage: Stage) -> Roster:
        self._require(stage)
        if self._roster is None:
            refuse(Refusal.OUT_OF_TURN, "there is no roster yet")
        return self._roster

    def _of_roster(self, said: _OfARoster) -> Roster:
        roster = self._roster
        if roster is None or said.roster != roster.digest:
            refuse(Refusal.OTHER_ROSTER, f"the message of {said.site} is of another roster")
        roster.member(said.site)
        return roster

    @staticmethod
    def _require_enough(
        roster: Roster, there: Collection[str], refusal: Refusal, what: str, needed: int = 0
    ) -> None:
        needed = needed or roster.threshold
        if len(there) < needed:
            missing = ", ".join(name for name in roster.names if name not in there)
            refuse(
                refusal,
                f"{len(there)} of {len(roster.members)} sites {what} and {needed} must "
                f"(missing: {missing})",
            )


def _once(site: str, seen: Mapping[str, object]) -> None:
    if site in seen:
        refuse(Refusal.OUT_OF_TURN, f"a message of {site} came twice")
