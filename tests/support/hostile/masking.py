"""Sites and a server that keep to the protocol, and places where a test steps between them."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.privacy.secure_aggregation.context import Configuration, Context
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.server import GroupSum, ServerRound
from wardround.common.privacy.secure_aggregation.site import (
    advertise,
    agree,
    mask,
    share,
    unmask,
)
from wardround.common.privacy.secure_aggregation.site_state import Party, SiteRound

GRID = Grid(largest=8.0, value_bits=24, most_sites=100)
LAYOUT = hashlib.sha256(b"layout").digest()


def configuration(length: int = 5, grid: Grid = GRID, groups: int = 1) -> Configuration:
    return Configuration(length, grid, LAYOUT, groups=groups)


def context(asked: Configuration, **changes: object) -> Context:
    plain = Context(
        study="a" * 64,
        run="b" * 32,
        round=3,
        attempt=1,
        configuration=asked.digest,
        model=hashlib.sha256(b"model").digest(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type] # of any field


def identity(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


@dataclass
class Masking:
    """One attempt of ``count`` sites, gone through as far as a test wants."""

    count: int
    length: int = 5
    grid: Grid = GRID
    attempt: int = 1
    groups: int = 1
    sent: dict[str, bytes] = field(default_factory=dict)
    rounds: dict[str, SiteRound] = field(default_factory=dict)
    masked: dict[str, Words] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"site-{index:02d}" for index in range(self.count)]
        keys = {name: identity(name) for name in self.names}
        public = {name: key.public_key() for name, key in keys.items()}
        self.parties = {name: Party(name, keys[name], public) for name in self.names}
        self.configuration = configuration(self.length, self.grid, self.groups)
        self.context = context(self.configuration, attempt=self.attempt)
        self.server = ServerRound(self.context, self.configuration, public)
        numbers = np.random.default_rng(7)
        top = self.grid.top
        self.plain = {
            name: self.grid.words_of(numbers.integers(-top, top + 1, self.length))
            for name in self.names
        }
        self.rounds = {name: SiteRound.begin(self.context) for name in self.names}

    def plain_sum(self, names: Collection[str]) -> Words:
        total = np.zeros(self.length, dtype=self.plain[self.names[0]].dtype)
        for name in names:
            total += self.plain[name]
        return total

    def advertise(self, gone: Collection[str] = ()) -> bytes:
        for name in self.names:
            if name not in gone:
                self.server.take_advertisement(advertise(self.rounds[name], self.parties[name]))
        self.sent["roster"] = self.server.close_roster()
        return self.sent["roster"]

    def share(self, gone: Collection[str] = ()) -> dict[str, bytes]:
        for name in self.names:
            if name not in gone:
                state, said = share(
                    self.rounds[name], self.parties[name], self.sent["roster"], self.configuration
                )
                self.rounds[name] = state
                self.server.take_shares(said)
        self.delivered = self.server.close_shares()
        return self.delivered

    def mask(self, gone: Collection[str] = ()) -> bytes:
        for name in self.names:
            if name not in gone:
                state, notice, vector = mask(
                    self.rounds[name], self.parties[name], self.delivered[name], self.plain[name]
                )
                self.rounds[name], self.masked[name] = state, vector
                self.server.take_masked(notice, vector)
        self.sent["survivors"] = self.server.close_masked()
        return self.sent["survivors"]

    def agree(self, gone: Collection[str] = ()) -> bytes:
        for name in self.names:
            if name not in gone:
                state, said = agree(self.rounds[name], self.parties[name], self.sent["survivors"])
                self.rounds[name] = state
                self.server.take_agreement(said)
        self.sent["agreements"] = self.server.close_agreements()
        return self.sent["agreements"]

    def unmask(self, gone: Collection[str] = ()) -> Words:
        """Return the words of the only sum."""
        (one,) = self.unmask_groups(gone)
        return one.words

    def unmask_groups(self, gone: Collection[str] = ()) -> tuple[GroupSum, ...]:
        for name in self.names:
            if name not in gone:
                state, said = unmask(self.rounds[name], self.parties[name], self.sent["agreements"])
                self.rounds[name] = state
                self.server.take_unmasking(said)
        return self.server.unmask()

    def up_to(self, stage: str) -> "Masking":
        """Go through the stages before one, with everybody there."""
        stages: list[tuple[str, Callable[[], object]]] = [
            ("advertise", self.advertise),
            ("share", self.share),
            ("mask", self.mask),
            ("agree", self.agree),
            ("unmask", self.unmask),
        ]
        for name, go in stages:
            if name == stage:
                break
            go()
        return self
